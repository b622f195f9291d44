//! The shell on a terminal: a line editor that knows the monitor's commands and remembers what was typed.

use std::{
    borrow::Cow,
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use reedline::{
    ColumnarMenu, Completer, CompletionResult, Emacs, ExternalPrinter, FileBackedHistory, KeyCode, KeyModifiers,
    MenuBuilder, Prompt, PromptEditMode, PromptHistorySearch, PromptHistorySearchStatus, Reedline, ReedlineEvent,
    ReedlineMenu, Signal, Span, Suggestion, default_emacs_keybindings,
};
use rhea_qmp::client::{Transport, line, schema::Schema};

use super::{
    Conversation, Outcome,
    screen::{EditorLink, Screen},
};

/// How many lines are remembered from one time to the next.
const REMEMBERED: usize = 2000;

/// How many lines may wait to be put above the one that is edited.
const WAITING_LINES: usize = 1024;

/// How soon an event is shown while nobody types.
const LOOK_FOR_EVENTS: Duration = Duration::from_millis(30);

const MENU: &str = "completions";

/// The line editor.
pub struct Editor {
    reedline: Reedline,
}

impl Editor {
    /// An editor, and the screen that prints around it.
    pub fn new(schema: Arc<Schema>) -> (Self, Screen) {
        let printer = ExternalPrinter::new(WAITING_LINES);
        let ended = Arc::new(AtomicBool::new(false));
        let screen = Screen::new(Some(EditorLink { lines: printer.sender(), ended: Arc::clone(&ended) }));
        let mut keys = default_emacs_keybindings();
        let complete = ReedlineEvent::UntilFound(vec![ReedlineEvent::Menu(MENU.to_owned()), ReedlineEvent::MenuNext]);
        keys.add_binding(KeyModifiers::NONE, KeyCode::Tab, complete);
        keys.add_binding(KeyModifiers::SHIFT, KeyCode::BackTab, ReedlineEvent::MenuPrevious);
        let menu = ColumnarMenu::default().with_name(MENU);
        let mut reedline = Reedline::create()
            .with_completer(Box::new(Commands(schema)))
            .with_menu(ReedlineMenu::EngineCompleter(Box::new(menu)))
            .with_quick_completions(true)
            .with_partial_completions(true)
            .with_edit_mode(Box::new(Emacs::new(keys)))
            .with_ansi_colors(screen.has_colour())
            .with_external_printer(printer)
            .with_poll_interval(LOOK_FOR_EVENTS)
            .with_break_signal(Arc::clone(&ended));
        if let Some(path) = history_file() {
            match FileBackedHistory::with_file(REMEMBERED, path) {
                Ok(history) => reedline = reedline.with_history(Box::new(history)),
                Err(error) => screen.complain(&format_args!("what is typed will not be remembered: {error}")),
            }
        }
        (Self { reedline }, screen)
    }

    /// Reads and runs lines until the person or the monitor has enough.
    pub fn run<S: Transport>(mut self, conversation: &mut Conversation<S>) -> anyhow::Result<ExitCode> {
        let screen = Arc::clone(&conversation.screen);
        loop {
            screen.begin_editing();
            let read = self.reedline.read_line(&Caret);
            if matches!(read, Ok(Signal::ExternalBreak(_))) {
                // What came last is still to be printed by the editor.
                self.reedline.with_immediately_accept(true).read_line(&Caret)?;
                screen.end_editing();
                return Ok(ExitCode::SUCCESS);
            }
            screen.end_editing();
            match read? {
                Signal::Success(line) => {
                    if let Outcome::Ended(_) = conversation.run_line(&line) {
                        return Ok(ExitCode::SUCCESS);
                    }
                }
                Signal::CtrlD => return Ok(ExitCode::SUCCESS),
                _ => {}
            }
        }
    }
}

/// Where lines are remembered: in the user's directory for state.
fn history_file() -> Option<PathBuf> {
    let absolute = |variable| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    Some(state.join("rhea/shell-history"))
}

/// Completion from what the monitor says it can do.
struct Commands(Arc<Schema>);

impl Completer for Commands {
    fn complete(&mut self, text: &str, cursor: usize) -> CompletionResult {
        let completion = line::complete(&self.0, text, cursor);
        let suggestions: Vec<Suggestion> = completion
            .candidates
            .into_iter()
            .map(|candidate| Suggestion {
                // After `name=` and `name.` the value or the rest of the name follows.
                append_whitespace: !candidate.text.ends_with(['=', '.']),
                value: candidate.text,
                description: Some(candidate.note).filter(|note| !note.is_empty()),
                span: Span::new(completion.start.min(cursor), cursor),
                ..Suggestion::default()
            })
            .collect();
        CompletionResult::fresh(suggestions)
    }
}

/// The prompt.
struct Caret;

impl Prompt for Caret {
    fn render_prompt_left(&self) -> Cow<'_, str> {
        Cow::Borrowed("qmp")
    }

    fn render_prompt_right(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn render_prompt_indicator(&self, _mode: PromptEditMode) -> Cow<'_, str> {
        Cow::Borrowed("> ")
    }

    fn render_prompt_multiline_indicator(&self) -> Cow<'_, str> {
        Cow::Borrowed("... ")
    }

    fn render_prompt_history_search_indicator(&self, search: PromptHistorySearch) -> Cow<'_, str> {
        let found = match search.status {
            PromptHistorySearchStatus::Passing => "",
            PromptHistorySearchStatus::Failing => "nothing ",
        };
        Cow::Owned(format!(" ({found}like '{}') ", search.term))
    }
}
