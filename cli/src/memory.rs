//! Memory that is kept while there is work, and given back after it.
//!
//! A node is idle for days and then handles packs of megabytes for seconds. Buffers that are mapped
//! and unmapped one by one are zeroed by the kernel each time, and in a virtual machine may have to
//! be got from its host again: in a push of 1 GiB that was 40 % of the processor time of all nodes.
//! What glibc keeps by itself stays until the process ends, in as many heaps as there were threads.
//! So there is one heap, and every few seconds what is free in it goes back to the system.
//!
//! Other C libraries have other allocators: with them none of this is there.

use std::time::Duration;

use tokio::runtime::Runtime;

/// How long free memory is kept: a push uses its buffers again within a moment.
const PAUSE: Duration = Duration::from_secs(5);

/// Buffers from this size on are mapped by themselves at the start, in bytes: sockets get long
/// ones, of which most is never touched.
const AT_FIRST: libc::c_int = 128 << 10;
/// And later: the most that glibc takes.
const LATER: libc::c_int = 32 << 20;
/// Free memory at the end of the heap that goes back at once, in bytes.
const TRIMMED: libc::c_int = 64 << 20;

/// One heap, which keeps what is freed. Call it first thing in `main`.
pub(crate) fn keep() {
    set(libc::M_ARENA_MAX, 1);
    set(libc::M_MMAP_THRESHOLD, AT_FIRST);
    set(libc::M_TRIM_THRESHOLD, TRIMMED);
}

/// Gives back what is free, again and again, for as long as the runtime lives.
pub(crate) fn give_back(runtime: &Runtime) {
    runtime.spawn(async {
        tokio::time::sleep(PAUSE).await;
        set(libc::M_MMAP_THRESHOLD, LATER);
        loop {
            trim();
            tokio::time::sleep(PAUSE).await;
        }
    });
}

#[allow(unsafe_code, reason = "the C library offers this by no other way")]
fn set(parameter: libc::c_int, value: libc::c_int) {
    // SAFETY: `mallopt` only sets a parameter of the allocator, under the allocator's lock.
    unsafe {
        libc::mallopt(parameter, value);
    }
}

#[allow(unsafe_code, reason = "the C library offers this by no other way")]
fn trim() {
    // SAFETY: `malloc_trim` takes the locks that it needs, and leaves what is in use alone.
    unsafe {
        libc::malloc_trim(0);
    }
}
