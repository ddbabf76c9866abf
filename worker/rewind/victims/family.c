// A process with a child, which share memory of every kind. It is asked over its standard input what the memory holds, and to have it changed by
// itself, by its child, and by processes that come and go. One answer line for each line.
//
//   state        a checksum over all shared memory and what was noted of signals
//   nap          the same, a tenth of a second later
//   mess SEED    some random changes, each made by somebody else
//   write, sibling, gone, grow, hole, shorter, longer, live, deep, orphan, zombie, queue, alarm, …   one particular change each
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define PAGES 4096L    // of the largest, of which every second is never touched
#define FEW 8

static unsigned char *inherited, *attached, *file;
static int descriptor, plain, orders[2], answers[2];
static pid_t child;
static volatile uint64_t collected, alarms, queued;
static uint64_t seed = 88172645463325252;

static uint64_t random64(void) {
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return seed;
}
static void on_child(int unused) {
    while (waitpid(-1, NULL, WNOHANG) > 0) collected++;
}
static void on_alarm(int unused) { alarms++; }
static void on_queued(int unused) { queued++; }

static void scribble(uint64_t which) {
    inherited[which % (PAGES / 2) * 2 * PAGE + which % 999]++;
    attached[which % (FEW * PAGE)]++;
    file[which % (2 * PAGE)]++;
}
static pid_t begin(void) {
    pid_t pid = fork();
    if (pid < 0) abort();
    if (!pid) prctl(PR_SET_PDEATHSIG, SIGKILL);
    return pid;
}
static void told_by(int reading) {
    char one;
    if (read(reading, &one, 1) != 1) abort();
}
static void told(void) { told_by(answers[0]); }
static void tell(int writing) {
    if (write(writing, "x", 1) != 1) abort();
}
static void stay(int writing) {
    tell(writing);
    for (;;) pause();
}
// A process that does something and ends; it was collected when this returns.
static void by_another(void (*what)(uint64_t), uint64_t which) {
    uint64_t before = collected;
    sigset_t end, old;
    sigemptyset(&end), sigaddset(&end, SIGCHLD), sigprocmask(SIG_BLOCK, &end, &old);
    if (!begin()) what(which), _exit(0);
    while (collected == before) sigsuspend(&old);
    sigprocmask(SIG_SETMASK, &old, NULL);
}
static void grow(uint64_t which) { inherited[(which % (PAGES / 2) * 2 + 1) * PAGE] = 5; }
static void by_child(char what) {
    if (write(orders[1], &what, 1) != 1) abort();
    told();
}
static uint64_t add(uint64_t sum, const volatile void *bytes, size_t size) {
    const uint64_t *words = (const void *)bytes;
    for (size_t at = 0; at < size / 8; at++) sum = (sum ^ words[at]) * 0x100000001b3, sum ^= sum >> 29;
    return sum;
}
static uint64_t state(void) {
    uint64_t sum = 0xcbf29ce484222325;
    unsigned char there[PAGES];
    // Reading a hole would fill it.
    if (mincore(inherited, PAGES * PAGE, there)) abort();
    for (long at = 0; at < PAGES; at++)
        if (there[at] & 1) sum = add(sum, inherited + at * PAGE, PAGE), sum = add(sum, &at, 8);
    sum = add(sum, attached, FEW * PAGE);
    unsigned char part[PAGE];
    ssize_t got;
    for (off_t at = 0; (got = pread(descriptor, part, sizeof part, at)) > 0; at += got) sum = add(sum, part, got), sum++;
    sum = add(sum, &collected, 8), sum = add(sum, &alarms, 8), sum = add(sum, &queued, 8);
    return add(sum, &seed, 8);
}
static void mess_once(void) {
    uint64_t what = random64() % 8, which = random64();
    switch (what) {
    case 0: scribble(which); break;
    case 1: by_child('w'); break;
    case 2: case 3: by_another(scribble, which); break;
    case 4: by_another(grow, which); break;
    case 5: madvise(inherited + which % PAGES * PAGE, PAGE, MADV_REMOVE); break;
    case 6: if (!begin()) scribble(which), stay(answers[1]); told(); break;
    case 7: ftruncate(descriptor, (2 + which % FEW) * PAGE); break;
    }
}

int main(int arguments, char **argument) {
    char line[256], path[256];
    prctl(PR_SET_PDEATHSIG, SIGKILL), prctl(PR_SET_CHILD_SUBREAPER, 1);
    if (pipe(orders) || pipe(answers)) abort();
    inherited = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int segment = shmget(IPC_PRIVATE, FEW * PAGE, 0600);
    attached = shmat(segment, NULL, 0);
    // It lives as long as somebody has it, and is seen in no list afterwards.
    if (arguments < 2 || strcmp(argument[1], "listed")) shmctl(segment, IPC_RMID, NULL);
    descriptor = memfd_create("family", MFD_CLOEXEC | MFD_ALLOW_SEALING), plain = fileno(tmpfile());
    if (ftruncate(descriptor, FEW * PAGE)) abort();
    file = mmap(NULL, FEW * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    for (long at = 0; at < PAGES; at += 2) memset(inherited + at * PAGE, at + 1, PAGE);
    memset(attached, 7, FEW * PAGE), memset(file, 9, 3 * PAGE);
    if (!(child = begin())) {
        char what;
        while (read(orders[0], &what, 1) == 1) scribble(what * 31), tell(answers[1]);
        _exit(0);
    }
    signal(SIGCHLD, on_child), signal(SIGALRM, on_alarm), signal(SIGRTMIN, on_queued);
    setvbuf(stdout, NULL, _IOLBF, 0);
    by_child('0');
    puts("ready");
    while (fgets(line, sizeof line, stdin)) {
        int number = 0, between[2];
        sigset_t set;
        sigemptyset(&set);
        if (sscanf(line, "mess %d", &number) == 1) {
            for (seed += number * 2, number = 0; number < 12; number++) mess_once();
        } else if (!strncmp(line, "write", 5)) {
            scribble(3);
        } else if (!strncmp(line, "sibling", 7)) {
            by_child('w');
        } else if (!strncmp(line, "gone", 4)) {
            by_another(scribble, 17);
        } else if (!strncmp(line, "grow", 4)) {
            by_another(grow, 5);
        } else if (!strncmp(line, "hole", 4)) {
            if (madvise(inherited + 4 * PAGE, 9 * PAGE, MADV_REMOVE)) abort();
        } else if (!strncmp(line, "shorter", 7)) {
            if (ftruncate(descriptor, 2 * PAGE + 8)) abort();
        } else if (!strncmp(line, "longer", 6)) {
            if (ftruncate(descriptor, 30 * PAGE) || pwrite(descriptor, "end", 3, 29 * PAGE) != 3) abort();
        } else if (!strncmp(line, "live", 4)) {
            for (int at = 0; at < 3; at++) {
                if (!begin()) scribble(at), stay(answers[1]);
                told();
            }
        } else if (!strncmp(line, "deep", 4)) {
            if (!begin()) {
                if (pipe(between)) abort();
                if (!begin()) scribble(1), stay(between[1]);
                told_by(between[0]), stay(answers[1]);
            }
            told();
        } else if (!strncmp(line, "orphan", 6)) {
            // Its parent ends, so it is given to us.
            pid_t parent = begin();
            if (!parent) {
                if (pipe(between)) abort();
                if (!begin()) prctl(PR_SET_PDEATHSIG, 0), scribble(2), stay(between[1]);
                told_by(between[0]), tell(answers[1]), _exit(0);
            }
            for (told(); kill(parent, 0) == 0;) usleep(100);
        } else if (!strncmp(line, "zombie", 6)) {
            sigaddset(&set, SIGCHLD), sigprocmask(SIG_BLOCK, &set, NULL);
            pid_t pid = begin();
            if (!pid) scribble(9), _exit(3);
            siginfo_t end;
            if (waitid(P_PID, pid, &end, WEXITED | WNOWAIT)) abort();
        } else if (!strncmp(line, "queue", 5)) {
            // Nothing else shows that they wait.
            sigaddset(&set, SIGRTMIN), sigaddset(&set, SIGUSR1), sigprocmask(SIG_BLOCK, &set, NULL);
            for (int at = 0; at < 3; at++) sigqueue(getpid(), SIGRTMIN, (union sigval){at});
            raise(SIGUSR1), scribble(1);
        } else if (!strncmp(line, "alarm", 5)) {
            struct itimerval soon = {.it_value.tv_usec = 30000, .it_interval.tv_usec = 10000};
            if (setitimer(ITIMER_REAL, &soon, NULL)) abort();
            scribble(1);
        } else if (!strncmp(line, "nap", 3)) {
            struct timespec time = {0, 100000000};
            while (nanosleep(&time, &time)) {}
        } else if (!strncmp(line, "end", 3)) {
            kill(child, SIGKILL);
            while (!collected) usleep(100);
        } else if (!strncmp(line, "lock", 4)) {
            // The description is one for both, so the lock stays when the child has ended.
            if (!begin()) _exit(flock(plain, LOCK_EX));
            while (!collected) usleep(100);
        } else if (!strncmp(line, "seal", 4)) {
            if (fcntl(descriptor, F_ADD_SEALS, F_SEAL_GROW)) abort();
        } else if (!strncmp(line, "forbid", 6)) {
            if (fcntl(descriptor, F_ADD_SEALS, F_SEAL_FUTURE_WRITE)) abort();
        } else if (!strncmp(line, "detach", 6)) {
            munmap(file, PAGE);
        } else if (sscanf(line, "map %255s", path) == 1) {
            int there = open(path, O_RDWR);
            unsigned char *bytes = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, there, 0);
            if (bytes == MAP_FAILED || close(there)) abort();
            bytes[PAGE + 7]++;
        } else if (!strncmp(line, "another", 7)) {
            if (shmget(IPC_PRIVATE, PAGE, 0600) < 0) abort();
        } else if (!strncmp(line, "child", 5)) {
            printf("%d\n", child);
            continue;
        }
        printf("%016lx 0\n", state());
    }
}
