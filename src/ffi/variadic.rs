//! The entries of the variadic exports. Defining C-variadic functions is not stable in Rust, but here all variable
//! arguments are `char *`, so they are in integer registers and then on the stack. An entry, in assembly for each
//! processor, puts the registers into memory and tells the function proper where they and the others are.

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
#[cfg(target_arch = "x86")]
const IN_REGISTERS: usize = 0;
#[cfg(target_arch = "arm")]
const IN_REGISTERS: usize = 1;
#[cfg(target_arch = "s390x")]
const IN_REGISTERS: usize = 2;
#[cfg(target_arch = "x86_64")]
const IN_REGISTERS: usize = 3;
#[cfg(any(target_arch = "aarch64", target_arch = "riscv64", target_arch = "powerpc64"))]
const IN_REGISTERS: usize = 5;

#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "riscv64",
    target_arch = "s390x",
    all(target_arch = "powerpc64", target_endian = "little"),
    target_arch = "arm",
    target_arch = "x86",
)))]
compile_error!("variadic functions and callbacks need entries for this processor's calling convention");

/// Exports a function of three named and any number of variable arguments, all of them integers or pointers of one
/// register. The function proper takes the named ones and a `&Variable`. C's view of it, the prototype, stands in
/// cbindgen.toml, if a header declares it.
///
/// The named arguments stay in their registers. Where the variable ones are:
///
/// | processor, convention | in registers | then, from the stack pointer on |
/// |---|---|---|
/// | x86-64, System V | rcx, r8, r9 | 8 |
/// | aarch64, AAPCS64 as Linux uses it | x3 to x7 | 0 |
/// | riscv64, LP64D | a3 to a7 | 0 |
/// | s390x, ELF | r5, r6 | 160: behind the area where registers are saved |
/// | ppc64el, ELFv2 | r6 to r10 | 96: behind the 32 bytes of links and the place of eight registers |
/// | arm, AAPCS (for variadic functions with hardware floating point, too) | r3 | 0 |
/// | i386, System V | none, the named ones are on the stack as well | 16 |
macro_rules! variadic {
    ($(#[$doc:meta])* $name:ident => $inner:ident) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// See the module `ffi`, and the function proper.
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name() {
            #[cfg(target_arch = "x86_64")]
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
            #[cfg(target_arch = "aarch64")]
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
            #[cfg(target_arch = "riscv64")]
            core::arch::naked_asm!(
                ".cfi_startproc",
                "addi sp, sp, -64",
                ".cfi_adjust_cfa_offset 64",
                "sd ra, 56(sp)",
                ".cfi_rel_offset ra, 56",
                "sd a3, 0(sp)",
                "sd a4, 8(sp)",
                "sd a5, 16(sp)",
                "sd a6, 24(sp)",
                "sd a7, 32(sp)",
                "addi a3, sp, 64",
                "sd a3, 40(sp)",
                "mv a3, sp",
                "call {inner}",
                "ld ra, 56(sp)",
                ".cfi_restore ra",
                "addi sp, sp, 64",
                ".cfi_adjust_cfa_offset -64",
                "ret",
                ".cfi_endproc",
                inner = sym $inner,
            );
            // The caller provides 160 bytes for registers, in which those that are saved have their places; the
            // pointer to the frame before stands at their beginning. What is called saves r6 itself.
            #[cfg(target_arch = "s390x")]
            core::arch::naked_asm!(
                ".cfi_startproc",
                "stmg %r14, %r15, 112(%r15)",
                ".cfi_offset %r14, -48",
                ".cfi_offset %r15, -40",
                "lgr %r1, %r15",
                "aghi %r15, -184",
                ".cfi_adjust_cfa_offset 184",
                "stg %r1, 0(%r15)",
                "stg %r5, 160(%r15)",
                "stg %r6, 168(%r15)",
                "la %r1, 160(%r1)",
                "stg %r1, 176(%r15)",
                "la %r5, 160(%r15)",
                "brasl %r14, {inner}",
                "lmg %r14, %r15, 296(%r15)",
                ".cfi_restore %r14",
                ".cfi_restore %r15",
                ".cfi_adjust_cfa_offset -184",
                "br %r14",
                ".cfi_endproc",
                inner = sym $inner,
            );
            // Whoever comes through a pointer or from another object has the address of the function in r12, and the
            // pointer to the table of contents is computed from it. Whoever comes from the same object has that pointer in
            // r2, and enters behind.
            #[cfg(target_arch = "powerpc64")]
            core::arch::naked_asm!(
                ".cfi_startproc",
                concat!(".L", stringify!($name), "_from_outside:"),
                concat!("addis 2, 12, .TOC.-.L", stringify!($name), "_from_outside@ha"),
                concat!("addi 2, 2, .TOC.-.L", stringify!($name), "_from_outside@l"),
                concat!(".localentry ", stringify!($name), ", .-", stringify!($name)),
                "mflr 0",
                "std 0, 16(1)",
                "stdu 1, -96(1)",
                ".cfi_def_cfa_offset 96",
                ".cfi_offset 65, 16",
                "std 6, 32(1)",
                "std 7, 40(1)",
                "std 8, 48(1)",
                "std 9, 56(1)",
                "std 10, 64(1)",
                "addi 6, 1, 192",
                "std 6, 72(1)",
                "addi 6, 1, 32",
                "bl {inner}",
                "nop",
                "addi 1, 1, 96",
                ".cfi_def_cfa_offset 0",
                "ld 0, 16(1)",
                "mtlr 0",
                ".cfi_restore 65",
                "blr",
                ".cfi_endproc",
                inner = sym $inner,
            );
            #[cfg(target_arch = "arm")]
            core::arch::naked_asm!(
                ".fnstart",
                "mov r12, sp",
                "push {{lr}}",
                ".save {{lr}}",
                "sub sp, sp, #12",
                ".pad #12",
                "str r3, [sp]",
                "str r12, [sp, #4]",
                "mov r3, sp",
                "bl {inner}",
                "add sp, sp, #12",
                "pop {{pc}}",
                ".fnend",
                inner = sym $inner,
            );
            #[cfg(target_arch = "x86")]
            core::arch::naked_asm!(
                ".cfi_startproc",
                "lea eax, [esp + 16]",
                "sub esp, 28",
                ".cfi_adjust_cfa_offset 28",
                "mov [esp + 16], eax",
                "lea eax, [esp + 16]",
                "mov [esp + 12], eax",
                "mov eax, [esp + 40]",
                "mov [esp + 8], eax",
                "mov eax, [esp + 36]",
                "mov [esp + 4], eax",
                "mov eax, [esp + 32]",
                "mov [esp], eax",
                "call {inner}",
                "add esp, 28",
                ".cfi_adjust_cfa_offset -28",
                "ret",
                ".cfi_endproc",
                inner = sym $inner,
            );
        }
    };
}
pub(super) use variadic;
