//! The stack: pushes and pops that leave RSP alone until they have succeeded. SDM vol. 1 § 6.2.

use crate::{
    access::{Access, Privilege, Value},
    protection::address::attribute,
    state::{CpuState, Segment, reg, seg},
    trap::{Exception, Trap},
};

const RSP: usize = reg::RSP as usize;
const SS: usize = seg::SS as usize;

impl CpuState {
    /// The bits of RSP that address the stack: 16, 32 or 64 of them.
    #[inline(always)]
    pub fn stack_mask(&self) -> u64 {
        if self.in_64_bit_code() {
            u64::MAX
        } else if self.segments[SS].has(attribute::BIG) {
            0xffff_ffff
        } else {
            0xffff
        }
    }

    /// Sets the bits of RSP that address the stack.
    #[inline(always)]
    pub fn set_stack_pointer(&mut self, pointer: u64) {
        self.gpr[RSP] = merge_pointer(self.gpr[RSP], pointer, self.stack_mask());
    }

    /// Pushes a value.
    ///
    /// # Errors
    /// #SS(0), #AC(0) or a page fault; RSP is as it was then.
    #[inline(always)]
    pub fn push<T: Value>(&mut self, value: T) -> Result<(), Trap> {
        let size = T::SIZE as u64;
        if self.in_64_bit_code() {
            let pointer = self.gpr[RSP].wrapping_sub(size);
            self.check_alignment(pointer, size)?;
            match self.write(pointer, value) {
                Ok(()) => {
                    self.gpr[RSP] = pointer;
                    Ok(())
                }
                Err(trap) => Err(self.stack_trap(pointer, size, trap)),
            }
        } else {
            self.push_segmented(value)
        }
    }

    /// Pushes a value if that is 64-bit code's and nothing can go wrong with it; whether it did.
    #[inline(always)]
    pub(crate) fn push_at_once<T: Value>(&mut self, value: T) -> bool {
        let pointer = self.gpr[RSP].wrapping_sub(T::SIZE as u64);
        let pushed = self.in_64_bit_code() && self.write_at_once(pointer, value);
        if pushed {
            self.gpr[RSP] = pointer;
        }
        pushed
    }

    /// The value at the top of the stack of 64-bit code, if nothing can go wrong with reading it.
    #[inline(always)]
    pub(crate) fn top_at_once<T: Value>(&self) -> Option<T> {
        if self.in_64_bit_code() { self.read_at_once(self.gpr[RSP]) } else { None }
    }

    fn push_segmented<T: Value>(&mut self, value: T) -> Result<(), Trap> {
        let mask = self.stack_mask();
        let pointer = self.gpr[RSP].wrapping_sub(T::SIZE as u64) & mask;
        let linear = self.linear_at(seg::SS, pointer, T::SIZE as u64, Access::Write)?;
        self.write(linear, value)?;
        self.gpr[RSP] = merge_pointer(self.gpr[RSP], pointer, mask);
        Ok(())
    }

    /// Pops a value.
    ///
    /// # Errors
    /// #SS(0), #AC(0) or a page fault; RSP is as it was then.
    #[inline(always)]
    pub fn pop<T: Value>(&mut self) -> Result<T, Trap> {
        let value = self.stack_top(0)?;
        self.drop_from_stack(T::SIZE as u64);
        Ok(value)
    }

    /// Reads the value `distance` bytes above the top of the stack, without popping it: for instructions that pop only
    /// after something else has succeeded.
    ///
    /// # Errors
    /// As [`pop`](Self::pop).
    #[inline(always)]
    pub fn stack_top<T: Value>(&mut self, distance: u64) -> Result<T, Trap> {
        if self.in_64_bit_code() {
            let pointer = self.gpr[RSP].wrapping_add(distance);
            self.check_alignment(pointer, T::SIZE as u64)?;
            match self.read(pointer) {
                Ok(value) => Ok(value),
                Err(trap) => Err(self.stack_trap(pointer, T::SIZE as u64, trap)),
            }
        } else {
            let pointer = self.gpr[RSP].wrapping_add(distance) & self.stack_mask();
            let linear = self.linear_at(seg::SS, pointer, T::SIZE as u64, Access::Read)?;
            self.read(linear)
        }
    }

    /// Moves the stack pointer up by `distance` bytes.
    #[inline(always)]
    pub fn drop_from_stack(&mut self, distance: u64) {
        if self.in_64_bit_code() {
            self.gpr[RSP] = self.gpr[RSP].wrapping_add(distance);
        } else {
            self.set_stack_pointer(self.gpr[RSP].wrapping_add(distance));
        }
    }

    /// What a failed access to the 64-bit stack raises: a non-canonical address is a stack fault.
    #[cold]
    fn stack_trap(&mut self, pointer: u64, size: u64, trap: Trap) -> Trap {
        if self.is_canonical(pointer) && self.is_canonical(pointer.wrapping_add(size - 1)) {
            trap
        } else {
            self.raise(Exception::stack(0))
        }
    }
}

/// `old` with the bits of `mask` from `new`; a 32-bit pointer clears the upper half.
#[inline(always)]
fn merge_pointer(old: u64, new: u64, mask: u64) -> u64 {
    if mask == 0xffff { old & !0xffff | new & 0xffff } else { new & mask }
}

/// A stack that several values go to or come from before anything is committed: the current one, or the one of an
/// inner privilege level that is not in SS yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stack {
    segment: Segment,
    /// Offset of the last value pushed.
    pub(crate) pointer: u64,
    mask: u64,
    privilege: Privilege,
    /// Error code of a stack fault.
    fault_code: u32,
}

impl Stack {
    /// The stack in use, accessed with the rights of the running code.
    pub(crate) fn current(cpu: &CpuState) -> Self {
        let mask = cpu.stack_mask();
        Self {
            segment: cpu.segments[SS],
            pointer: cpu.gpr[RSP] & mask,
            mask,
            privilege: cpu.privilege(),
            fault_code: 0,
        }
    }

    /// A stack of privilege level `cpl` in a segment that is not loaded yet. A stack fault has the error code
    /// `fault_code`.
    pub(crate) fn new(segment: Segment, pointer: u64, cpl: u8, fault_code: u32) -> Self {
        let mask = if segment.has(attribute::BIG) { 0xffff_ffff } else { 0xffff };
        Self { segment, pointer: pointer & mask, mask, privilege: privilege_of(cpl), fault_code }
    }

    /// A stack of 64-bit code of privilege level `cpl`.
    pub(crate) fn long(pointer: u64, cpl: u8, fault_code: u32) -> Self {
        Self { segment: Segment::default(), pointer, mask: u64::MAX, privilege: privilege_of(cpl), fault_code }
    }

    /// The same stack with another error code for stack faults.
    pub(crate) fn with_fault_code(self, fault_code: u32) -> Self {
        Self { fault_code, ..self }
    }

    fn linear(&self, cpu: &mut CpuState, pointer: u64, size: u64, access: Access) -> Result<u64, Trap> {
        let (linear, allowed) = if self.mask == u64::MAX {
            (pointer, cpu.is_canonical(pointer) && cpu.is_canonical(pointer.wrapping_add(size - 1)))
        } else {
            let linear = self.segment.base.wrapping_add(pointer) & 0xffff_ffff;
            (linear, self.segment.contains(pointer, size) && cpu.allows_segment(&self.segment, access))
        };
        if !allowed {
            return Err(cpu.raise(Exception::stack(self.fault_code)));
        }
        if self.privilege == Privilege::User {
            cpu.check_alignment(linear, size)?;
        }
        Ok(linear)
    }

    /// Pushes a value.
    pub(crate) fn push<T: Value>(&mut self, cpu: &mut CpuState, value: T) -> Result<(), Trap> {
        let pointer = self.pointer.wrapping_sub(T::SIZE as u64) & self.mask;
        let linear = self.linear(cpu, pointer, T::SIZE as u64, Access::Write)?;
        match self.privilege {
            Privilege::Supervisor => cpu.write_system(linear, value)?,
            Privilege::User | Privilege::Override => cpu.write(linear, value)?,
        }
        self.pointer = pointer;
        Ok(())
    }

    /// Pushes the low `size` bytes (2, 4 or 8) of a value.
    pub(crate) fn push_sized(&mut self, cpu: &mut CpuState, size: u8, value: u64) -> Result<(), Trap> {
        match size {
            2 => self.push(cpu, value as u16),
            4 => self.push(cpu, value as u32),
            _ => self.push(cpu, value),
        }
    }

    /// Pops a value.
    pub(crate) fn pop<T: Value>(&mut self, cpu: &mut CpuState) -> Result<T, Trap> {
        let linear = self.linear(cpu, self.pointer, T::SIZE as u64, Access::Read)?;
        let value = match self.privilege {
            Privilege::Supervisor => cpu.read_system(linear)?,
            Privilege::User | Privilege::Override => cpu.read(linear)?,
        };
        self.drop(T::SIZE as u64);
        Ok(value)
    }

    /// Pops `size` bytes (2, 4 or 8), zero-extended.
    pub(crate) fn pop_sized(&mut self, cpu: &mut CpuState, size: u8) -> Result<u64, Trap> {
        Ok(match size {
            2 => u64::from(self.pop::<u16>(cpu)?),
            4 => u64::from(self.pop::<u32>(cpu)?),
            _ => self.pop::<u64>(cpu)?,
        })
    }

    /// Pops a selector in a slot of `size` bytes, of which processors read two.
    pub(crate) fn pop_selector(&mut self, cpu: &mut CpuState, size: u8) -> Result<u16, Trap> {
        let selector = self.pop::<u16>(cpu)?;
        self.drop(u64::from(size) - 2);
        Ok(selector)
    }

    /// Moves the pointer up by `distance` bytes.
    pub(crate) fn drop(&mut self, distance: u64) {
        self.pointer = self.pointer.wrapping_add(distance) & self.mask;
    }

    /// Makes this stack's pointer the processor's; its segment must be in SS already.
    pub(crate) fn commit(self, cpu: &mut CpuState) {
        cpu.gpr[RSP] = merge_pointer(cpu.gpr[RSP], self.pointer, self.mask);
    }
}

/// The rights of code at a privilege level.
fn privilege_of(cpl: u8) -> Privilege {
    if cpl == 3 { Privilege::User } else { Privilege::Supervisor }
}

#[cfg(test)]
mod tests {
    use crate::{
        engine::testing::STACK,
        protection::fixture::Fixture,
        state::{reg, seg},
        trap::Exception,
    };

    const RSP: usize = reg::RSP as usize;

    #[test]
    fn a_16_bit_stack_wraps_at_64_kib_and_keeps_the_upper_half() {
        let mut fixture = Fixture::new(&[], 32);
        fixture.cpu().segments[usize::from(seg::SS)].attributes = 0x0093;
        fixture.cpu().gpr[RSP] = 0x1234_0000;
        assert_eq!(fixture.cpu().push(0xabcd_u16), Ok(()));
        assert_eq!(fixture.cpu().gpr[RSP], 0x1234_fffe);
        assert_eq!(fixture.read_u16(0xfffe), 0xabcd);
        assert_eq!(fixture.cpu().pop(), Ok(0xabcd_u16));
        assert_eq!(fixture.cpu().gpr[RSP], 0x1234_0000);
    }

    #[test]
    fn a_push_that_faults_leaves_the_stack_pointer() {
        let mut fixture = Fixture::new(&[], 32);
        fixture.cpu().segments[usize::from(seg::SS)].limit = 0xfff;
        let result = fixture.cpu().push(1_u32);
        assert_eq!(fixture.outcome(result), Err(Exception::stack(0)));
        assert_eq!(fixture.rsp(), STACK);
    }

    #[test]
    fn a_non_canonical_stack_raises_a_stack_fault() {
        let mut fixture = Fixture::new(&[], 64);
        fixture.cpu().gpr[RSP] = 0x8000_0000_0004;
        let result = fixture.cpu().push(1_u64);
        // Half of it would lie in the hole.
        assert_eq!(fixture.outcome(result), Err(Exception::stack(0)));
        assert_eq!(fixture.rsp(), 0x8000_0000_0004);
    }
}
