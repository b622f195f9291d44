//! What a command may know of the session that gave it, and leave there.

use std::any::{Any, TypeId};
use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::descriptors::Descriptors;

/// One session, as its commands see it. All it holds ends with the session.
pub struct SessionHandle {
    number: u64,
    descriptors: Descriptors,
    named: RefCell<BTreeMap<String, OwnedFd>>,
    extensions: RefCell<HashMap<TypeId, Rc<dyn Any>>>,
}

impl SessionHandle {
    pub(super) fn new(number: u64, descriptors: Descriptors) -> Self {
        Self { number, descriptors, named: RefCell::default(), extensions: RefCell::default() }
    }

    /// A session without a client, for callers inside the process. Its number is 0.
    pub fn detached() -> Self {
        Self::new(0, Descriptors::default())
    }

    /// The session's number: 1 for the first of the process, never used again.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The earliest descriptor that came with the client's messages and was not taken yet.
    pub fn take_descriptor(&self) -> Option<OwnedFd> {
        self.descriptors.take()
    }

    /// The descriptors that the client gave names to.
    pub fn named_descriptors(&self) -> RefMut<'_, BTreeMap<String, OwnedFd>> {
        self.named.borrow_mut()
    }

    /// The session's one value of type `T`, made when first asked for: a place for what commands remember from one
    /// to the next.
    pub fn extension<T: Default + 'static>(&self) -> Rc<T> {
        let mut extensions = self.extensions.borrow_mut();
        let slot = extensions.entry(TypeId::of::<T>()).or_insert_with(|| Rc::new(T::default()));
        slot.clone().downcast().unwrap_or_default()
    }

    pub(super) fn descriptors(&self) -> &Descriptors {
        &self.descriptors
    }
}
