//! Giving memory back after work.
//!
//! A node is idle for days and then handles packs of megabytes for seconds. By default glibc raises
//! its threshold for separate mappings when the first of them is freed, and keeps all later ones;
//! with a fixed threshold large buffers go back to the system as they are freed. After a push a
//! host then keeps a tenth of what it would otherwise.

/// Buffers from this size on are mapped and unmapped by themselves, in bytes.
const THRESHOLD: libc::c_int = 128 << 10;

/// Fixes the threshold. Call it first thing in `main`.
#[allow(unsafe_code, reason = "the C library offers this by no other way")]
pub(crate) fn give_back() {
    // SAFETY: `mallopt` only sets a parameter of the allocator; no other thread runs yet.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, THRESHOLD);
    }
}
