/* Interposed by short_tests.rs: a disk that takes half of a write.
 *
 * Of the writes to regular files below `$BARID_TEST_FAULTS/root`, the one with the number
 * `$BARID_TEST_SHORT` is cut in half, as a disk does that has room for no more. With
 * `$BARID_TEST_FULL` the disk is full from then on. That it has come to it is noted by a file
 * `short` in that folder. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int turns;
static int full;

static int is_installed(int fd) {
  char link[64], path[4096], root[4096];
  const char *place = getenv("BARID_TEST_FAULTS");
  if (!place) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  snprintf(root, sizeof root, "%s/root/", place);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return strncmp(path, root, strlen(root)) == 0;
}

static void note(void) {
  char path[4096];
  snprintf(path, sizeof path, "%s/short", getenv("BARID_TEST_FAULTS"));
  int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (fd >= 0) close(fd);
}

/* How many of the bytes the disk takes; -1: none, it is full. */
static ssize_t room(int fd, size_t length) {
  const char *turn = getenv("BARID_TEST_SHORT");
  if (!turn || length < 2 || !is_installed(fd)) return (ssize_t)length;
  if (__atomic_load_n(&full, __ATOMIC_SEQ_CST)) return -1;
  if (__atomic_add_fetch(&turns, 1, __ATOMIC_SEQ_CST) != atoi(turn)) return (ssize_t)length;
  note();
  if (getenv("BARID_TEST_FULL")) __atomic_store_n(&full, 1, __ATOMIC_SEQ_CST);
  return (ssize_t)(length / 2);
}

static ssize_t no_room(void) {
  errno = ENOSPC;
  return -1;
}

ssize_t write(int fd, const void *bytes, size_t length) {
  ssize_t taken = room(fd, length);
  return taken < 0 ? no_room() : syscall(SYS_write, fd, bytes, (size_t)taken);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at) {
  ssize_t taken = room(fd, length);
  return taken < 0 ? no_room() : syscall(SYS_pwrite64, fd, bytes, (size_t)taken, at);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) {
  return pwrite64(fd, bytes, length, at);
}
