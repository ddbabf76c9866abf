// A process that is asked over its standard input what it holds, and to make a mess of it. One answer line for each line.
//
//   state        a checksum over everything that commands can change
//   mess SEED    some dozens of random changes: heap, mappings, rights, dropped pages, threads, the stack
//   threads N    N more threads that stay
//   move, drop, unmap, file, heap, advised
//                one particular change each
//   exit         the end
//
// Beside it run threads that count, sleep, wait for a condition, poll and use floating point, so that a freeze finds them anywhere.
#define _GNU_SOURCE
#include <fcntl.h>
#include <math.h>
#include <netinet/in.h>
#include <poll.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define BLOCKS 256
#define REGIONS 16
#define PAGE 4096
#define REGION (64 * PAGE)
#define LARGE (16 << 20)

static unsigned char *blocks[BLOCKS];
static size_t sizes[BLOCKS];
static unsigned char *regions[REGIONS];
static int readable[REGIONS];
static unsigned char *lost, *large, *advised;
static uint64_t seed, made_threads, relro = 7;
static volatile uint64_t counted, slept, polled;
static int begun, locked, events;
static volatile int stay = 1, leaver;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;

static uint64_t random64(void) {
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return seed;
}

static void *count(void *unused) {
    __atomic_add_fetch(&begun, 1, __ATOMIC_SEQ_CST);
    double value = 1;
    for (;;) {
        value = sin(value) + sqrt(value + 2);
        counted += value != value ? 1000 : 1;
        if (value != value || value > 10) abort();  // a lost vector register
    }
}
static void *nap(void *unused) {
    __atomic_add_fetch(&begun, 1, __ATOMIC_SEQ_CST);
    for (;;) {
        struct timespec time = {0, 300000};
        if (nanosleep(&time, NULL)) abort();  // no signal ever comes
        slept++;
    }
}
static void *wait_forever(void *unused) {
    __atomic_add_fetch(&begun, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_lock(&mutex);
    for (;;) pthread_cond_wait(&condition, &mutex);
}
static void *wait_events(void *unused) {
    events = epoll_create1(EPOLL_CLOEXEC);
    __atomic_add_fetch(&begun, 1, __ATOMIC_SEQ_CST);
    struct epoll_event event;
    for (;;) {
        if (epoll_wait(events, &event, 1, polled % 3 ? 1 : -1) < 0) abort();
        polled++;
    }
}
static void *poll_long(void *unused) {
    __atomic_add_fetch(&begun, 1, __ATOMIC_SEQ_CST);
    for (;;)
        if (poll(NULL, 0, 100000) < 0) abort();
}
static void *until_asked(void *unused) {
    leaver = (int)syscall(SYS_gettid);
    __atomic_add_fetch(&begun, 1, __ATOMIC_SEQ_CST);
    struct timespec time = {0, 1000000};
    while (stay) nanosleep(&time, NULL);
    return NULL;
}
static void start(void *(*what)(void *)) {
    pthread_t thread;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 128 * 1024);
    if (pthread_create(&thread, &attributes, what, NULL)) abort();
    pthread_detach(thread);
    // Until it runs its own code it is not what it will be: the C library registers things with the kernel first.
    static int wanted;
    for (wanted++; __atomic_load_n(&begun, __ATOMIC_SEQ_CST) < wanted;) sched_yield();
}

static unsigned char *fresh(void) {
    unsigned char *region = mmap(NULL, REGION, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (region == MAP_FAILED) abort();
    return region;
}
static uint64_t deep(int depth) {
    volatile unsigned char frame[2048];
    memset((void *)frame, depth, sizeof frame);
    return depth ? deep(depth - 1) + frame[7] : frame[9];
}
static void mess_once(void) {
    uint64_t what = random64() % 12, which = random64();
    unsigned char **block = &blocks[which % BLOCKS];
    unsigned char **region = &regions[which % REGIONS];
    int *may = &readable[which % REGIONS];
    switch (what) {
    case 0: case 1: case 2: case 3: {
        free(*block);
        size_t size = sizes[which % BLOCKS] = random64() % (which % 7 ? 2000 : 300000) + 1;
        *block = malloc(size);
        memset(*block, (int)random64(), size);
        break;
    }
    case 4: if (*block) (*block)[random64() % sizes[which % BLOCKS]]++; break;
    case 5: if (*region && *may) munmap(*region, REGION), *region = NULL; break;
    case 6: if (!*region) *region = fresh(), *may = 1; break;
    case 7: if (*region && *may) memset(*region + random64() % 60 * PAGE, (int)random64(), 4 * PAGE); break;
    case 8: if (*region && *may) madvise(*region + random64() % 60 * PAGE, 3 * PAGE, MADV_DONTNEED); break;
    case 9: if (*region) *may = !*may, mprotect(*region, REGION, *may ? PROT_READ | PROT_WRITE : PROT_NONE); break;
    case 10: relro += deep(random64() % 200); break;
    case 11: if (random64() % 8 == 0) start(wait_forever), made_threads++; break;
    }
}
static uint64_t add(uint64_t sum, const void *bytes, size_t size) {
    for (; size >= 8; bytes += 8, size -= 8) sum = (sum ^ *(const uint64_t *)bytes) * 0x100000001b3, sum ^= sum >> 29;
    for (size_t at = 0; at < size; at++) sum = (sum ^ ((const unsigned char *)bytes)[at]) * 0x100000001b3;
    return sum;
}
static uint64_t state(void) {
    uint64_t sum = 0xcbf29ce484222325;
    for (int at = 0; at < BLOCKS; at++) {
        sum = add(sum, &blocks[at], sizeof blocks[at]);
        if (blocks[at]) sum = add(sum, blocks[at], sizes[at]);
    }
    for (int at = 0; at < REGIONS; at++) {
        sum = add(sum, &regions[at], sizeof regions[at]);
        if (regions[at] && readable[at]) sum = add(sum, regions[at], REGION);
    }
    sum = add(sum, large, LARGE);
    sum = add(sum, &seed, sizeof seed);
    sum = add(sum, &made_threads, sizeof made_threads);
    // The file without a name.
    unsigned char part[PAGE];
    ssize_t got;
    for (off_t at = 0; (got = pread(locked, part, sizeof part, at)) > 0; at += got) sum = add(sum, part, got);
    return add(sum, &relro, sizeof relro);
}

int main(int arguments, char **argument) {
    char line[256];
    prctl(PR_SET_PDEATHSIG, SIGKILL);  // a failed test leaves nothing behind
    int quiet = arguments > 1 && !strcmp(argument[1], "quiet");
    for (int at = 0; at < BLOCKS; at += 2) memset(blocks[at] = malloc(sizes[at] = at * 40 + 1), at, at * 40 + 1);
    for (int at = 0; at < REGIONS; at += 2) memset(regions[at] = fresh(), at + 1, REGION / 2), readable[at] = 1;
    memset(lost = fresh(), 99, REGION);
    memset(large = mmap(NULL, LARGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 77, LARGE);
    // Some allocators advise against huge pages, or for them, in a part of what they have.
    memset(advised = fresh(), 3, REGION), madvise(advised + PAGE, PAGE, MADV_NOHUGEPAGE);
    // A mapping of a file that has become shorter: behind its end there is nothing to read.
    int short_file = fileno(tmpfile());
    unsigned char *beyond = mmap(NULL, REGION, PROT_READ | PROT_WRITE, MAP_PRIVATE, short_file, 0);
    if (ftruncate(short_file, 8 * PAGE) || beyond == MAP_FAILED) abort();
    memset(beyond, 1, PAGE), memset(beyond + 6 * PAGE, 1, PAGE);
    if (ftruncate(short_file, 3 * PAGE)) abort();
    if (!quiet) {
        start(count), start(nap), start(wait_events), start(poll_long);
        for (int at = 0; at < 4; at++) start(wait_forever);
    }
    locked = fileno(tmpfile());
    struct flock one = {.l_type = F_WRLCK, .l_start = 2, .l_len = 3};
    if (fcntl(locked, F_SETLK, &one)) abort();
    int place = open(argument[0], O_RDONLY), missing = open(argument[0], O_RDONLY | O_CLOEXEC);
    int replaced = open(argument[0], O_RDONLY), event = eventfd(4, 0), tube[2];
    int timer = timerfd_create(CLOCK_MONOTONIC, 0), notes = inotify_init(), port = -1;
    sigset_t signals;
    sigemptyset(&signals), sigaddset(&signals, SIGUSR1);
    int delivered = signalfd(-1, &signals, 0);
    if (pipe(tube) || place < 0 || missing < 0 || timer < 0 || notes < 0 || delivered < 0) abort();
    seed = 88172645463325252;
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) {
        int number = 0;
        if (sscanf(line, "mess %d", &number) == 1) {
            for (seed += number * 2, number = 0; number < 60; number++) mess_once();
        } else if (sscanf(line, "threads %d", &number) == 1) {
            for (made_threads += number; number > 0; number--) start(wait_forever);
        } else if (!strncmp(line, "move", 4)) {
            unsigned char *there = fresh();
            if (mremap(regions[0], REGION, REGION, MREMAP_MAYMOVE | MREMAP_FIXED, there) != there) abort();
            regions[0] = there;
        } else if (!strncmp(line, "again", 5)) {
            munmap(regions[2], REGION);
            int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
            if (mmap(regions[2], REGION, PROT_READ | PROT_WRITE, flags, -1, 0) != regions[2]) abort();
            regions[2][5] = 77;
        } else if (!strncmp(line, "vast", 4)) {
            // Whole page tables become empty.
            madvise(large, LARGE, MADV_DONTNEED);
        } else if (!strncmp(line, "part", 4)) {
            madvise(large, LARGE, MADV_DONTNEED), large[5 << 20] = 3;
        } else if (!strncmp(line, "drop", 4)) {
            madvise(lost, REGION, MADV_DONTNEED), relro += lost[3] + 1;
        } else if (!strncmp(line, "heap", 4)) {
            memset(sbrk(1000000), 5, 1000000), relro++;
        } else if (!strncmp(line, "shrink", 6)) {
            sbrk(-8192), relro++;
        } else if (!strncmp(line, "advised", 7)) {
            munmap(advised, 3 * PAGE), advised[3 * PAGE] = 9, relro++;
        } else if (!strncmp(line, "child", 5)) {
            if (!fork()) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                for (;;) pause();
            }
        } else if (!strncmp(line, "umask", 5)) {
            open("/", O_RDONLY), relro++;
            if (chdir("/proc")) abort();
        } else if (!strncmp(line, "handler", 7)) {
            signal(SIGUSR1, SIG_IGN);
        } else if (!strncmp(line, "uring", 5)) {
            unsigned char parameters[256] = {0};
            if (syscall(SYS_io_uring_setup, 4, parameters) < 0) { puts("none"); continue; }
        } else if (!strncmp(line, "shared", 6)) {
            char path[4096];
            snprintf(path, sizeof path, "%s.shared", argument[0]);
            int disk = open(path, O_RDWR | O_CREAT, 0600);
            if (ftruncate(disk, PAGE)) abort();
            if (mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, disk, 0) == MAP_FAILED || close(disk)) abort();
        } else if (!strncmp(line, "timer", 5)) {
            timer_t timer;
            struct sigevent none = {.sigev_notify = SIGEV_NONE};
            if (timer_create(CLOCK_MONOTONIC, &none, &timer)) abort();
        } else if (!strncmp(line, "pend", 4)) {
            sigset_t one;
            sigemptyset(&one), sigaddset(&one, SIGUSR2), pthread_sigmask(SIG_BLOCK, &one, NULL);
            pthread_kill(pthread_self(), SIGUSR2);
        } else if (!strncmp(line, "lock", 4)) {
            struct flock lock = {.l_type = F_WRLCK, .l_start = 8, .l_len = 1};
            if (fcntl(locked, F_SETLK, &lock)) abort();
        } else if (!strncmp(line, "unlock", 6)) {
            close(dup(locked)), relro++;
        } else if (!strncmp(line, "files", 5)) {
            // Seventeen bytes on, one closed, one replaced, two new, an event counted, bytes in a pipe.
            if (read(place, line, 17) != 17) abort();
            uint64_t one = 1;
            close(missing), dup2(1, replaced), open("/dev/null", O_RDONLY);
            if (write(event, &one, 8) != 8 || write(tube[1], "abc", 3) != 3) abort();
            fcntl(tube[0], F_SETFL, O_NONBLOCK), relro++;
        } else if (sscanf(line, "loose %d", &number) == 1) {
            for (; number > 0; number--) if (write(locked, "loose", 5) != 5) abort();
        } else if (!strncmp(line, "listen", 6)) {
            struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
            socklen_t size = sizeof at;
            port = socket(AF_INET, SOCK_STREAM, 0);
            if (bind(port, (void *)&at, size) || listen(port, 9) || getsockname(port, (void *)&at, &size)) abort();
            printf("%d\n", ntohs(at.sin_port));
            continue;
        } else if (!strncmp(line, "watch", 5)) {
            struct epoll_event event = {.events = EPOLLIN};
            int fresh[2];
            if (pipe(fresh) || epoll_ctl(events, EPOLL_CTL_ADD, fresh[0], &event)) abort();
            relro++;
        } else if (!strncmp(line, "mask", 4)) {
            // Watched for something else; what is watched from the start is not.
            struct epoll_event event = {.events = EPOLLIN};
            if (epoll_ctl(events, EPOLL_CTL_ADD, 0, &event)) abort();
        } else if (!strncmp(line, "named", 5)) {
            char path[4096];
            snprintf(path, sizeof path, "%s.named", argument[0]);
            if (open(path, O_RDWR | O_CREAT, 0600) < 0) abort();
        } else if (!strncmp(line, "segment", 7)) {
            if (shmget(IPC_PRIVATE, PAGE, 0600) < 0) abort();
        } else if (!strncmp(line, "limit", 5)) {
            struct rlimit limit = {100, 100};
            if (setrlimit(RLIMIT_NOFILE, &limit)) abort();
        } else if (!strncmp(line, "nice", 4)) {
            if (setpriority(PRIO_PROCESS, 0, 5)) abort();
        } else if (!strncmp(line, "guest", 5)) {
            start(until_asked);
        } else if (!strncmp(line, "accept", 6)) {
            if (accept(port, NULL, NULL) < 0) abort();
        } else if (!strncmp(line, "rights", 6)) {
            umask(0123);
        } else if (!strncmp(line, "group", 5)) {
            if (syscall(SYS_setresgid, 7, 7, 7)) abort();
        } else if (!strncmp(line, "user", 4)) {
            if (syscall(SYS_setresuid, 0, 7, 0)) abort();
        } else if (!strncmp(line, "others", 6)) {
            gid_t one = 7;
            if (syscall(SYS_setgroups, 1, &one)) abort();
        } else if (!strncmp(line, "ability", 7)) {
            if (prctl(PR_CAPBSET_DROP, 22, 0, 0, 0)) abort();  // CAP_SYS_BOOT
        } else if (!strncmp(line, "inherit", 7)) {
            // struct __user_cap_header_struct and __user_cap_data_struct, version 3: one more that is inherited.
            uint32_t header[2] = {0x20080522, 0}, sets[6];
            if (syscall(SYS_capget, header, sets)) abort();
            sets[2] ^= 1;
            if (syscall(SYS_capset, header, sets)) abort();
        } else if (!strncmp(line, "privileges", 10)) {
            if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) abort();
        } else if (!strncmp(line, "filter", 6)) {
            struct sock_filter all = {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW};
            struct sock_fprog program = {1, &all};
            if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) abort();
        } else if (!strncmp(line, "jail", 4)) {
            if (chroot("/proc")) abort();
        } else if (!strncmp(line, "host", 4)) {
            if (unshare(CLONE_NEWUTS)) abort();
        } else if (!strncmp(line, "victim", 6)) {
            int score = open("/proc/self/oom_score_adj", O_WRONLY);
            if (write(score, "77", 2) != 2 || close(score)) abort();
        } else if (!strncmp(line, "person", 6)) {
            if (personality(ADDR_NO_RANDOMIZE) < 0) abort();
        } else if (!strncmp(line, "robust", 6)) {
            static void *head[3] = {head};
            if (syscall(SYS_set_robust_list, head, sizeof head)) abort();
        } else if (!strncmp(line, "processor", 9)) {
            cpu_set_t one;
            CPU_ZERO(&one);
            CPU_SET(0, &one);
            if (sched_setaffinity(0, sizeof one, &one)) abort();
        } else if (!strncmp(line, "leave", 5)) {
            // Asked in the kernel's words: the C library has no number for it.
            stay = 0;
            char path[64];
            snprintf(path, sizeof path, "/proc/self/task/%d", leaver);
            while (!access(path, F_OK)) sched_yield();
        } else if (!strncmp(line, "arm", 3)) {
            struct itimerspec later = {.it_value.tv_sec = 1000};
            if (timerfd_settime(timer, 0, &later, NULL)) abort();
        } else if (!strncmp(line, "note", 4)) {
            if (inotify_add_watch(notes, "/", IN_CREATE) < 0) abort();
        } else if (!strncmp(line, "deliver", 7)) {
            sigaddset(&signals, SIGUSR2);
            if (signalfd(delivered, &signals, 0) != delivered) abort();
        } else if (!strncmp(line, "instead", 7)) {
            if (dup2(place, timer) != timer) abort();
        } else if (!strncmp(line, "exit", 4)) {
            return 0;
        }
        printf("%016lx %lu\n", state(), counted);
    }
}
