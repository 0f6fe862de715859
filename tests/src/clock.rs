//! A wall clock that a test can set, for processes of a fleet.
//!
//! What a node knows of the time of day it asks the C library, and a library that is loaded before
//! it can say something else. It is compiled by the machine's C compiler, and reads by how much the
//! clock is ahead from a file that all such processes have mapped, so that they see a change at the
//! same moment. The clock that only counts what has passed is left alone: beats, redials and the
//! pace of alerts go on as they do.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{Place, show};

const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile const int64_t *ahead;

__attribute__((constructor)) static void map_it(void) {
    const char *path = getenv("BARID_TEST_CLOCK");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *at = mmap(0, sizeof *ahead, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (at != MAP_FAILED) ahead = at;
}

int clock_gettime(clockid_t id, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, id, now);
    if (!failed && id == CLOCK_REALTIME && ahead) now->tv_sec += *ahead;
    return failed;
}
"#;

/// The clock.
pub struct Clock {
    dir: tempfile::TempDir,
}

impl Clock {
    /// A clock that is right; none where there is no C compiler, which is said.
    pub fn new() -> Result<Option<Clock>> {
        let dir = tempfile::Builder::new().prefix("barid-clock-").tempdir()?;
        let source = dir.path().join("clock.c");
        fs::write(&source, SOURCE)?;
        let clock = Clock { dir };
        clock.set_ahead(0)?;
        let mut compile = Command::new("cc");
        compile.args(["-shared", "-fPIC", "-O1", "-o"]).arg(clock.library()).arg(source);
        match compile.output() {
            Ok(output) => {
                ensure!(output.status.success(), "cc: {}", show(&output.stderr));
                Ok(Some(clock))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                println!("skipped: no C compiler makes a clock that can be set");
                Ok(None)
            }
            Err(error) => Err(error).context("cc"),
        }
    }

    fn library(&self) -> PathBuf {
        self.dir.path().join("clock.so")
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("ahead")
    }

    /// Where a process is that lives by this clock.
    pub fn place(&self) -> Place {
        let library = format!("LD_PRELOAD={}", self.library().display());
        let file = format!("BARID_TEST_CLOCK={}", self.file().display());
        Place { before: vec!["env".into(), library, file], listen: None }
    }

    /// From now on it is so many seconds ahead of the right time.
    pub fn set_ahead(&self, seconds: i64) -> Result<()> {
        let path = self.file();
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        // In place: those who have mapped it see it.
        Ok(file.write_all(&seconds.to_ne_bytes())?)
    }
}
