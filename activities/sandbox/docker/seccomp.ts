/**
 * The system calls a container's programs may make, by what they are for. What stands in no line is refused with EPERM:
 * mounts, namespaces, kernel modules, kexec, bpf, perf events, userfaultfd, io_uring, keyrings, file handles, clocks, swap,
 * quotas. Names that a kernel or an engine does not know are passed over.
 */
const ALLOWED: Record<string, string> = {
  openAndClose: `open openat openat2 creat close close_range dup dup2 dup3 fcntl flock ioctl memfd_create pipe pipe2 umask`,
  readAndWrite: `read readv pread64 preadv preadv2 write writev pwrite64 pwritev pwritev2 lseek readahead fadvise64 sendfile splice
    tee vmsplice copy_file_range fallocate truncate ftruncate sync syncfs fsync fdatasync sync_file_range sync_file_range2
    io_setup io_submit io_getevents io_pgetevents io_cancel io_destroy`,
  folders: `chdir fchdir getcwd getdents getdents64 mkdir mkdirat rmdir`,
  names: `link linkat symlink symlinkat readlink readlinkat rename renameat renameat2 unlink unlinkat mknod mknodat`,
  aboutFiles: `stat lstat fstat newfstatat statx statfs fstatfs access faccessat faccessat2 cachestat chmod fchmod fchmodat fchmodat2
    chown lchown fchown fchownat utime utimes futimesat utimensat`,
  attributes: `getxattr lgetxattr fgetxattr getxattrat setxattr lsetxattr fsetxattr setxattrat listxattr llistxattr flistxattr
    listxattrat removexattr lremovexattr fremovexattr removexattrat`,
  watches: `inotify_init inotify_init1 inotify_add_watch inotify_rm_watch poll ppoll select pselect6 epoll_create epoll_create1
    epoll_ctl epoll_ctl_old epoll_wait epoll_wait_old epoll_pwait epoll_pwait2 eventfd eventfd2 signalfd signalfd4`,
  memory: `brk mmap munmap mremap mprotect madvise process_madvise mincore msync mseal mlock mlock2 mlockall munlock munlockall
    remap_file_pages pkey_alloc pkey_free pkey_mprotect map_shadow_stack membarrier`,
  processes: `fork vfork execve execveat exit exit_group wait4 waitid kill tkill tgkill pidfd_open pidfd_send_signal getpid getppid
    gettid getpgid getpgrp getsid setpgid setsid ptrace process_vm_readv process_vm_writev kcmp restart_syscall uretprobe`,
  threads: `futex futex_wait futex_waitv futex_wake futex_requeue set_robust_list get_robust_list set_tid_address
    set_thread_area get_thread_area arch_prctl rseq`,
  scheduling: `sched_yield sched_getaffinity sched_setaffinity sched_getattr sched_setattr sched_getparam sched_setparam
    sched_getscheduler sched_setscheduler sched_get_priority_max sched_get_priority_min sched_rr_get_interval getcpu
    getpriority setpriority ioprio_get ioprio_set`,
  limits: `prctl prlimit64 getrlimit setrlimit getrusage times sysinfo uname`,
  // Without capabilities they change nothing that is not the program's own.
  identity: `getuid geteuid getgid getegid getresuid getresgid getgroups setuid setgid setreuid setregid setresuid setresgid
    setfsuid setfsgid setgroups capget capset seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self`,
  signals: `rt_sigaction rt_sigprocmask rt_sigpending rt_sigqueueinfo rt_tgsigqueueinfo rt_sigreturn rt_sigsuspend
    rt_sigtimedwait sigaltstack pause alarm`,
  time: `time gettimeofday clock_gettime clock_getres clock_nanosleep nanosleep adjtimex clock_adjtime getitimer setitimer
    timer_create timer_delete timer_settime timer_gettime timer_getoverrun timerfd_create timerfd_settime timerfd_gettime`,
  random: `getrandom`,
  sockets: `bind connect listen accept accept4 getsockname getpeername getsockopt setsockopt shutdown send sendto sendmsg
    sendmmsg recv recvfrom recvmsg recvmmsg`,
  betweenProcesses: `shmget shmat shmdt shmctl semget semop semtimedop semctl msgget msgsnd msgrcv msgctl mq_open mq_unlink
    mq_timedsend mq_timedreceive mq_notify mq_getsetattr`,
  otherProcessors: `riscv_flush_icache riscv_hwprobe swapcontext switch_endian`,
};

/** UNIX, INET, INET6, NETLINK. AF_VSOCK reaches the hypervisor past every network namespace; more families come with modules. */
const SOCKET_FAMILIES = [1, 2, 10, 16];
/** NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. */
const CLONE_NEW_ANY = 0x7e020000;
/** Linux, Linux with 32 bits, and the question which one it is. */
const PERSONALITIES = [0, 8, 0xffffffff];
const ENOSYS = 38;

interface Argument {
  index: number;
  value: number;
  valueTwo?: number;
  op: 'SCMP_CMP_EQ' | 'SCMP_CMP_MASKED_EQ';
}

interface Rule {
  names: string[];
  action: 'SCMP_ACT_ALLOW' | 'SCMP_ACT_ERRNO';
  errnoRet?: number;
  args?: Argument[];
  includes?: { arches: string[] };
  excludes?: { arches: string[] };
}

const allow = (names: string[], args?: Argument[]): Rule => ({
  names,
  action: 'SCMP_ACT_ALLOW',
  ...(args === undefined ? {} : { args }),
});
const equal = (index: number, value: number): Argument[] => [{ index, value, op: 'SCMP_CMP_EQ' }];
/** The mask in `value`, what is to be left in `valueTwo`. */
const noNamespace = (index: number): Argument[] => [
  { index, value: CLONE_NEW_ANY, valueTwo: 0, op: 'SCMP_CMP_MASKED_EQ' },
];
/** There the first two arguments of clone are swapped. */
const SWAPPED = { arches: ['s390', 's390x'] };

/**
 * The seccomp profile (JSON) of every container, in place of the engine's: those of engines before 23 let programs make vsock
 * sockets. Programs of the machine's own word size only.
 */
export function seccompProfile(): string {
  const rules: Rule[] = [
    allow(Object.values(ALLOWED).flatMap((names) => names.split(/\s+/))),
    ...SOCKET_FAMILIES.map((family) => allow(['socket', 'socketpair'], equal(0, family))),
    ...PERSONALITIES.map((personality) => allow(['personality'], equal(0, personality))),
    { ...allow(['clone'], noNamespace(0)), excludes: SWAPPED },
    { ...allow(['clone'], noNamespace(1)), includes: SWAPPED },
    // Its flags are behind a pointer, where no filter can read them: C libraries fall back to clone.
    { names: ['clone3'], action: 'SCMP_ACT_ERRNO', errnoRet: ENOSYS },
  ];
  return JSON.stringify({ defaultAction: 'SCMP_ACT_ERRNO', syscalls: rules });
}
