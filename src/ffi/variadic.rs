//! The entries of the variadic exports. Defining C-variadic functions is not stable in Rust, but here all variable
//! arguments are `char *`, so they are in integer registers and then on the stack. An entry puts the registers into
//! memory and tells the function proper where they and the others are.

use std::ffi::c_char;

/// Where the variable arguments of a call are.
#[repr(C)]
pub(super) struct Variable {
    /// Those that came in registers.
    registers: [*const c_char; IN_REGISTERS],
    /// The others, on the caller's stack.
    stack: *const *const c_char,
}

impl Variable {
    /// One argument; 0 is the first.
    ///
    /// # Safety
    /// So many were passed.
    pub(super) unsafe fn get(&self, index: usize) -> *const c_char {
        match index.checked_sub(IN_REGISTERS) {
            None => self.registers[index],
            // SAFETY: the caller's promise; behind the registers all are on the stack, one after the other.
            Some(index) => unsafe { *self.stack.add(index) },
        }
    }
}

/// How many variable arguments come in registers, behind three named ones.
#[cfg(target_arch = "x86_64")]
const IN_REGISTERS: usize = 3;
#[cfg(target_arch = "aarch64")]
const IN_REGISTERS: usize = 5;

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("variadic functions need an entry for this architecture's calling convention");

/// Exports a function of three named and any number of variable arguments, all of them integers or pointers. The
/// function proper takes the named ones and a `&Variable`. C's view of it, the prototype, stands in cbindgen.toml, if a
/// header declares it.
///
/// x86-64, System V: rdi, rsi, rdx are named arguments; rcx, r8, r9 and then the caller's stack hold the variable
/// ones. aarch64, AAPCS64 as Linux uses it: x0 to x2 are named arguments; x3 to x7 and then the caller's stack.
macro_rules! variadic {
    ($(#[$doc:meta])* $name:ident => $inner:ident) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// See the module `ffi`, and the function proper.
        #[cfg(target_arch = "x86_64")]
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name() {
            core::arch::naked_asm!(
                ".cfi_startproc",
                "lea rax, [rsp + 8]",
                "sub rsp, 40",
                ".cfi_adjust_cfa_offset 40",
                "mov [rsp], rcx",
                "mov [rsp + 8], r8",
                "mov [rsp + 16], r9",
                "mov [rsp + 24], rax",
                "mov rcx, rsp",
                "call {inner}",
                "add rsp, 40",
                ".cfi_adjust_cfa_offset -40",
                "ret",
                ".cfi_endproc",
                inner = sym $inner,
            );
        }

        $(#[$doc])*
        ///
        /// # Safety
        /// See the module `ffi`, and the function proper.
        #[cfg(target_arch = "aarch64")]
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name() {
            core::arch::naked_asm!(
                ".cfi_startproc",
                "mov x9, sp",
                "sub sp, sp, #64",
                ".cfi_adjust_cfa_offset 64",
                "str x30, [sp, #56]",
                ".cfi_rel_offset x30, 56",
                "stp x3, x4, [sp]",
                "stp x5, x6, [sp, #16]",
                "stp x7, x9, [sp, #32]",
                "mov x3, sp",
                "bl {inner}",
                "ldr x30, [sp, #56]",
                ".cfi_restore x30",
                "add sp, sp, #64",
                ".cfi_adjust_cfa_offset -64",
                "ret",
                ".cfi_endproc",
                inner = sym $inner,
            );
        }
    };
}
pub(super) use variadic;
