type CallName =
  | 'capset'
  | 'clock_gettime'
  | 'close_range'
  | 'kcmp'
  | 'mount'
  | 'mount_setattr'
  | 'move_mount'
  | 'open_tree'
  | 'pidfd_open'
  | 'pivot_root'
  | 'prctl'
  | 'prlimit64'
  | 'sched_setaffinity'
  | 'sendmsg'
  | 'setgroups'
  | 'sethostname'
  | 'setns'
  | 'setresgid'
  | 'setresuid'
  | 'setsid'
  | 'statfs'
  | 'umount2'
  | 'unshare';

/** System call numbers the sandbox needs, per architecture (asm/unistd_64.h and asm-generic/unistd.h). */
export interface SyscallTable {
  auditArch: number;
  /** x86-64 answers a second table under this bit (x32); null where there is none. */
  alternateAbiBit: number | null;
  /** Called by the scripts of this folder. */
  calls: Record<CallName, number>;
  clone: number;
  clone3: number;
  socket: number;
  socketpair: number;
  ioctl: number;
  /** Refused with EPERM. */
  denied: Record<string, number>;
  /**
   * Refused too where no control group holds the limit, since they lead around what stands in for it: memfd_create (its
   * pages are in no process's count) and sched_setaffinity.
   */
  deniedWithout: Record<'memory' | 'cpu', number>;
}

const SAME_ON_BOTH = {
  io_uring_setup: 425,
  io_uring_enter: 426,
  io_uring_register: 427,
  open_tree: 428,
  move_mount: 429,
  fsopen: 430,
  fsconfig: 431,
  fsmount: 432,
  fspick: 433,
  pidfd_getfd: 438,
  mount_setattr: 442,
  quotactl_fd: 443,
  memfd_secret: 447,
};

const X64: SyscallTable = {
  auditArch: 0xc000003e,
  alternateAbiBit: 0x40000000,
  calls: {
    capset: 126,
    clock_gettime: 228,
    close_range: 436,
    kcmp: 312,
    mount: 165,
    mount_setattr: 442,
    move_mount: 429,
    open_tree: 428,
    pidfd_open: 434,
    pivot_root: 155,
    prctl: 157,
    prlimit64: 302,
    sched_setaffinity: 203,
    sendmsg: 46,
    setgroups: 116,
    sethostname: 170,
    setns: 308,
    setresgid: 119,
    setresuid: 117,
    setsid: 112,
    statfs: 137,
    umount2: 166,
    unshare: 272,
  },
  clone: 56,
  clone3: 435,
  socket: 41,
  socketpair: 53,
  ioctl: 16,
  denied: {
    ...SAME_ON_BOTH,
    ptrace: 101,
    syslog: 103,
    uselib: 134,
    vhangup: 153,
    modify_ldt: 154,
    pivot_root: 155,
    _sysctl: 156,
    chroot: 161,
    acct: 163,
    settimeofday: 164,
    mount: 165,
    umount2: 166,
    swapon: 167,
    swapoff: 168,
    reboot: 169,
    sethostname: 170,
    setdomainname: 171,
    iopl: 172,
    ioperm: 173,
    create_module: 174,
    init_module: 175,
    delete_module: 176,
    quotactl: 179,
    nfsservctl: 180,
    lookup_dcookie: 212,
    clock_settime: 227,
    kexec_load: 246,
    add_key: 248,
    request_key: 249,
    keyctl: 250,
    migrate_pages: 256,
    unshare: 272,
    move_pages: 279,
    perf_event_open: 298,
    fanotify_init: 300,
    name_to_handle_at: 303,
    open_by_handle_at: 304,
    clock_adjtime: 305,
    setns: 308,
    process_vm_readv: 310,
    process_vm_writev: 311,
    kcmp: 312,
    finit_module: 313,
    kexec_file_load: 320,
    bpf: 321,
    userfaultfd: 323,
  },
  deniedWithout: { memory: 319, cpu: 203 },
};

const ARM64: SyscallTable = {
  auditArch: 0xc00000b7,
  alternateAbiBit: null,
  calls: {
    capset: 91,
    clock_gettime: 113,
    close_range: 436,
    kcmp: 272,
    mount: 40,
    mount_setattr: 442,
    move_mount: 429,
    open_tree: 428,
    pidfd_open: 434,
    pivot_root: 41,
    prctl: 167,
    prlimit64: 261,
    sched_setaffinity: 122,
    sendmsg: 211,
    setgroups: 159,
    sethostname: 161,
    setns: 268,
    setresgid: 149,
    setresuid: 147,
    setsid: 157,
    statfs: 43,
    umount2: 39,
    unshare: 97,
  },
  clone: 220,
  clone3: 435,
  socket: 198,
  socketpair: 199,
  ioctl: 29,
  denied: {
    ...SAME_ON_BOTH,
    lookup_dcookie: 18,
    umount2: 39,
    mount: 40,
    pivot_root: 41,
    nfsservctl: 42,
    chroot: 51,
    vhangup: 58,
    quotactl: 60,
    acct: 89,
    unshare: 97,
    kexec_load: 104,
    init_module: 105,
    delete_module: 106,
    clock_settime: 112,
    syslog: 116,
    ptrace: 117,
    reboot: 142,
    sethostname: 161,
    setdomainname: 162,
    settimeofday: 170,
    add_key: 217,
    request_key: 218,
    keyctl: 219,
    swapon: 224,
    swapoff: 225,
    migrate_pages: 238,
    move_pages: 239,
    perf_event_open: 241,
    fanotify_init: 262,
    name_to_handle_at: 264,
    open_by_handle_at: 265,
    clock_adjtime: 266,
    setns: 268,
    process_vm_readv: 270,
    process_vm_writev: 271,
    kcmp: 272,
    finit_module: 273,
    bpf: 280,
    userfaultfd: 282,
    kexec_file_load: 294,
  },
  deniedWithout: { memory: 279, cpu: 122 },
};

/** null on an architecture without a table: the sandbox is refused there. */
export function syscallTable(arch: string): SyscallTable | null {
  switch (arch) {
    case 'x64':
      return X64;
    case 'arm64':
      return ARM64;
    default:
      return null;
  }
}
