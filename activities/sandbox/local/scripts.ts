import type { SyscallTable } from './kernel.ts';
import { SUPERVISOR } from './supervisor.ts';
import { USAGE } from './usage.ts';

/**
 * The programs the provider runs. Perl, because it starts in two milliseconds, can call the kernel directly and is part
 * of every Debian's base system; a Node process per command would take forty.
 */
const PRELUDE = String.raw`
$| = 1;
our $parent = getppid();
# A copy of the arguments: syscall() may write to strings, and takes numbers only from numeric scalars.
sub call { my ($name, @args) = @_; my $r = syscall($n{$name}, @args); $r >= 0 or die "$name: $!\n"; return $r }
# The worker may have been given files that close on no exec.
call('close_range', 3, 0xffffffff, 0);
sub start_time { open(my $f, '<', "/proc/$_[0]/stat") or return ''; my $line = <$f>; defined $line or return ''; $line =~ s/^.*\) //s; my @v = split / /, $line; return $v[0] eq 'Z' ? '' : $v[19] }
sub now { my $b = "\0" x 16; syscall($n{clock_gettime}, 1, $b); my ($s, $ns) = unpack('q2', $b); return $s + $ns / 1e9 }
sub become { my ($uid) = @_; call('setgroups', 0, 0); call('setresgid', $uid, $uid, $uid); call('setresuid', $uid, $uid, $uid) }
# Flags of mount_setattr: 1 read-only, 2 no setuid, 4 no devices, 8 no programs; of its lookup: 0x8000 recursive.
sub attributes { my ($path, $flags, $deep) = @_; call('mount_setattr', -100, $path, $deep ? 0x8000 : 0, pack('Q4', $flags, 0, 0, 0), 32) }
sub limit {
  my ($resource, $value) = @_;
  my $old = "\0" x 16;
  syscall($n{prlimit64}, 0, $resource, 0, $old) == 0 or die "prlimit64: $!\n";
  my (undef, $hard) = unpack('Q2', $old);
  $value = $hard if $hard < $value;
  call('prlimit64', 0, $resource, pack('Q2', $value, $value), 0);
}
`;

/** A root file system of its own, out of what the arguments name, in namespaces of its own. */
const ROOT = String.raw`
sub put { my ($file, $text) = @_; open(my $f, '>', $file) or die "$file: $!\n"; syswrite($f, $text) == length $text or die "$file: $!\n"; close $f }
sub separate {
  my ($uid, $box, $namespaces) = @_;
  # The working directory keeps the box reachable for a uid that could not walk to it.
  chdir $box or die "$box: $!\n";
  become($uid + 0) if $uid >= 0;
  my ($outer_uid, $outer_gid) = ($> + 0, (split / /, $))[0] + 0);
  call('prctl', 38, 1, 0, 0, 0);
  # Changing the uid made /proc/self root's, where the maps below are written.
  call('prctl', 4, 1, 0, 0, 0);
  call('unshare', $namespaces);
  put('/proc/self/setgroups', 'deny');
  put('/proc/self/uid_map', "0 $outer_uid 1");
  put('/proc/self/gid_map', "0 $outer_gid 1");
}
sub folder { my ($path) = @_; my $made = ''; for my $part (split m{/}, substr($path, 1)) { $made .= "/$part"; mkdir $made } }
my $root = '/tmp';
# Folders that only the starter can walk to: mounts of their own, taken while it still is who it is.
my %trees;
sub take { for (@_) { $trees{$1} = call('open_tree', -100, $1, 1 | 0x80000) if /^tree:[^=]+=(\/.*)$/s } }
sub show { my ($from, $to, $flags) = @_;
  if (-d $from) { folder($to) } elsif (!-e $to) { folder($to =~ s{/[^/]*$}{}r); open(my $f, '>>', $to) or die "$to: $!\n" }
  call('mount', $from, $to, 0, 0x1000 | 0x4000, 0);
  attributes($to, $flags, 1);
}
sub tmpfs { my ($to, $options) = @_; folder($to); call('mount', 'tmpfs', $to, 'tmpfs', 2 | 4, $options) }
sub furnish {
  call('mount', 'none', '/', 0, 0x4000 | 0x40000, 0);
  # What lies below the mount point could not be found any more.
  my %held;
  for (@_) { if (/^bind:[^=]+=(\/.*)$/s) { sysopen(my $f, $1, 0x200000) or die "$1: $!\n"; $held{$1} = $f } }
  tmpfs($root, 'mode=0755,size=1m');
  for (@_) {
    my ($kind, $path, $rest) = /^(bind|tree|link|file):([^=]+)=?(.*)$/s or die "argument: $_\n";
    if ($kind eq 'tree') { folder("$root$path"); call('move_mount', $trees{$rest}, '', -100, "$root$path", 4); attributes("$root$path", 1 | 2 | 4, 1) }
    elsif ($kind eq 'bind') { show($held{$rest} ? '/proc/self/fd/' . fileno($held{$rest}) : $rest eq '' ? $path : $rest, "$root$path", 1 | 2 | 4) }
    elsif ($kind eq 'link') { folder("$root$path" =~ s{/[^/]*$}{}r); symlink($rest, "$root$path") or die "$path: $!\n" }
    else { folder("$root$path" =~ s{/[^/]*$}{}r); put("$root$path", $rest) }
  }
}
sub move_in {
  attributes($root, 1 | 2 | 4, 0);
  chdir $root or die "$root: $!\n";
  call('pivot_root', '.', '.');
  call('umount2', '.', 2);
  chdir '/' or die "/: $!\n";
}
`;

/**
 * Becomes process 1 of a sandbox's namespaces, in a root file system of its own. The host's is unmounted there: what a
 * process of the sandbox can reach through another one's /proc entry is never more than its own root.
 * Arguments: the sandbox's uid (-1: stay), the folder with workspace and tmp, a marker that names the sandbox, its memory
 * in bytes, then what the root shows: bind:<path>, bind:<path>=<source>, tree:<path>=<source> (as root only), link:<path>=<target>,
 * file:<path>=<content>.
 * Prints its pid as the host sees it, then "ready", and waits for "go": a starter that died before it wrote the pid down
 * leaves nothing behind.
 */
const HOLDER = String.raw`
my ($uid, $box, $marker, $memory, @shown) = @ARGV;
$0 = "longhaul-sandbox $marker";
umask 022;
take(@shown);
# User, mount, network, process, IPC and host name namespace.
separate($uid, $box, 0x10000000 | 0x20000 | 0x40000000 | 0x20000000 | 0x8000000 | 0x4000000);
pipe(my $settled, my $settling) or die "pipe: $!\n";
my $pid = fork();
defined $pid or die "fork: $!\n";
# The starter takes the end of this process for the end of the conversation.
if ($pid) { close $settling; print "pid $pid\n"; sysread($settled, my $none, 1); exit 0 }
close $settled;
furnish(@shown);
folder("$root/dev");
for my $name (qw(null zero full random urandom tty)) { show("/dev/$name", "$root/dev/$name", 2 | 8) }
folder("$root/dev/pts");
call('mount', 'devpts', "$root/dev/pts", 'devpts', 2 | 8, 'newinstance,ptmxmode=0666,mode=0620');
for ([ 'pts/ptmx', 'ptmx' ], [ '/proc/self/fd', 'fd' ], [ 'fd/0', 'stdin' ], [ 'fd/1', 'stdout' ], [ 'fd/2', 'stderr' ]) { symlink($_->[0], "$root/dev/$_->[1]") }
tmpfs("$root/dev/shm", 'mode=1777,size=64m,nr_inodes=16384');
tmpfs("$root/run", 'mode=0755,size=16m,nr_inodes=4096');
show('workspace', "$root/workspace", 2 | 4);
show('tmp', "$root/tmp", 2 | 4);
show('session', "$root/mnt/session", 2 | 4);
folder("$root/proc");
call('mount', 'proc', "$root/proc", 'proc', 2 | 4 | 8, 0);
# System V segments and messages are in no process's count while nobody has them mapped. Older kernels refuse this to all
# but the machine's root.
eval {
  open(my $f, '<', '/proc/self/auxv') or die;
  sysread($f, my $words, 4096);
  my %auxiliary = unpack('Q*', $words);
  put("$root/proc/sys/kernel/shmall", int($memory / 4 / $auxiliary{6}));
  put("$root/proc/sys/kernel/msgmni", 64);
};
for my $name (qw(sys sysrq-trigger irq bus fs)) {
  my $path = "$root/proc/$name";
  -e $path or next;
  call('mount', $path, $path, 0, 0x1000 | 0x4000, 0);
  attributes($path, 1 | 2 | 4 | 8, 1);
}
# What tells of the machine and that no command needs.
for my $name (qw(acpi cmdline config.gz kallsyms kcore keys latency_stats sched_debug scsi timer_list)) {
  my $path = "$root/proc/$name";
  if (-d $path) { call('mount', 'tmpfs', $path, 'tmpfs', 1 | 2 | 4 | 8, 'size=4k,nr_inodes=2,mode=0555') }
  elsif (-e $path) { call('mount', '/dev/null', $path, 0, 0x1000, 0); attributes($path, 2 | 8, 0) }
}
move_in();
call('sethostname', 'sandbox', 7);
socket(my $s, 2, 2, 0) or die "socket: $!\n";
my $lo = pack('a16 s x22', 'lo', 0x41);
ioctl($s, 0x8914, $lo) or die "lo: $!\n";
close $s;
# Commands that join need to see this process; who has fewer capabilities than it can see nothing of it.
call('prctl', 4, 1, 0, 0, 0);
$SIG{CHLD} = 'IGNORE';
print "ready\n";
my $go = <STDIN>;
exit 1 unless defined $go && $go eq "go\n";
open(STDIN, '<', '/dev/null');
open(STDOUT, '>', '/dev/null');
open(STDERR, '>', '/dev/null');
close $settling;
select(undef, undef, undef, 86400) while 1;
`;

/**
 * `enter` goes into the namespaces of a holder and runs a command there: as the sandbox's uid, without capabilities or
 * a way to get any, behind the filter. The process that called it stays outside and ends as the command did.
 * Every exec has a host name namespace of its own. Nothing inside can leave it, so it tells whose a process is.
 */
const ENTER = String.raw`
sub confine {
  my ($filter) = @_;
  call('prctl', 4, 0, 0, 0, 0);
  for my $capability (0 .. 63) { last if syscall($n{prctl}, 24, $capability, 0, 0, 0) < 0 }
  call('prctl', 47, 4, 0, 0, 0);
  call('prctl', 38, 1, 0, 0, 0);
  call('prctl', 22, 2, pack('Sx6P', length($filter) / 8, $filter));
  call('capset', pack('II', 0x20080522, 0), "\0" x 24);
  # The kernel forgets this whenever credentials change.
  call('prctl', 1, 9, 0, 0, 0);
}
sub enter {
  my ($tell, $marker, $uid, $holder, $holder_start, $filter_file, $cwd, $limits, $env, @command) = @_;
  my $inside = 0;
  eval {
    open(my $f, '<', $filter_file) or die "filter: $!\n";
    my $filter = do { local $/; <$f> };
    close $f;
    my $pidfd = call('pidfd_open', $holder + 0, 0);
    start_time($holder) eq $holder_start or die "it is gone\n";
    # Its root is what confines the command's files: no other process will do.
    open(my $name, '<', "/proc/$holder/cmdline") or die "$holder: $!\n";
    (<$name> // '') =~ /^longhaul-sandbox \Q$marker\E\0*$/ or die "$holder is not its process 1\n";
    close $name;
    become($uid + 0) if $uid >= 0;
    call('prctl', 38, 1, 0, 0, 0);
    call('setns', $pidfd, 0x10000000 | 0x4000000);
    # A cgroup namespace too: the names of the machine's groups are nothing to the command.
    call('unshare', 0x4000000 | 0x2000000);
    if ($tell) { syswrite($tell, readlink('/proc/self/ns/uts')); sysread($tell, my $ok, 1) or die "left alone\n" }
    call('setns', $pidfd, 0x20000 | 0x40000000 | 0x20000000 | 0x8000000);
    call('prctl', 1, 9, 0, 0, 0);
    # Too late for one who died before.
    getppid() == $parent or die "left alone\n";
    chdir '/';
    pipe(my $lives, my $life) or die "pipe: $!\n";
    my $pid = fork();
    defined $pid or die "fork: $!\n";
    if ($pid) {
      close $lives;
      waitpid($pid, 0);
      my $signal = $? & 127;
      exit($? >> 8) if !$signal;
      $SIG{$_} = 'DEFAULT' for keys %SIG;
      kill($signal, $$);
      exit(128 + $signal);
    }
    close $life;
    limit($_ + 0, $limits->{$_} + 0) for keys %$limits;
    confine($filter);
    # Too late again for one who died before. getppid() would not tell: the parent is in no process namespace of this one,
    # and who takes its place, the machine's process 1, is not either.
    fcntl($lives, 4, 0x800);
    !defined sysread($lives, my $none, 1) or die "left alone\n";
    $inside = 1;
    %ENV = %$env;
    umask 022;
    chdir $cwd or die "$cwd: $!\n";
    exec { $command[0] } @command or do { print STDERR "$command[0]: $!\n"; exit($! == 2 ? 127 : 126) };
  };
  print STDERR $inside ? '' : 'sandbox: ', $@;
  exit($inside ? 126 : 125);
}
`;

/** Runs one command to its end with the given standard streams. Arguments: as \`enter\` takes them, no limits. */
const RUN = String.raw`
my ($marker, $uid, $holder, $holder_start, $filter, @command) = @ARGV;
$0 = 'longhaul-run';
enter(undef, $marker, $uid, $holder, $holder_start, $filter, '/', { 4 => 0 }, { PATH => '/usr/bin:/bin', LC_ALL => 'C.UTF-8' }, @command);
`;

/**
 * Saves a sandbox's files to standard output, or makes them out of standard input. In a root of its own with the machine's
 * programs and the box in it, so that no link leads anywhere; as the owner of the files, who there may read what is locked.
 * Arguments: process id of who waits for it, uid, box, bytes a file may have, tar's arguments up to "--", what the root shows.
 */
const PACK = String.raw`
my ($waiting, $uid, $box, $size, @rest) = @ARGV;
$0 = 'longhaul-pack';
my @tar;
while (defined(my $each = shift @rest)) { last if $each eq '--'; push @tar, $each }
separate($uid, $box, 0x10000000 | 0x20000 | 0x40000000 | 0x20000000 | 0x8000000);
# Whoever waits for it may be killed: half a restore must not go on beside the next.
call('prctl', 1, 9, 0, 0, 0);
# Too late for one who died before.
getppid() == $waiting or die "left alone\n";
pipe(my $lives, my $life) or die "pipe: $!\n";
my $pid = fork();
defined $pid or die "fork: $!\n";
if ($pid) { close $lives; waitpid($pid, 0); exit($? & 127 ? 128 + ($? & 127) : $? >> 8) }
close $life;
call('prctl', 1, 9, 0, 0, 0);
# Too late again, told by the pipe: who died outside of this process namespace has no number here.
fcntl($lives, 4, 0x800);
!defined sysread($lives, my $none, 1) or die "left alone\n";
furnish(@rest);
folder("$root/dev");
show('/dev/null', "$root/dev/null", 2 | 8);
show($_, "$root/box/$_", 2 | 4 | 8) for qw(workspace session);
move_in();
limit(1, $size + 0);
limit(4, 0);
%ENV = (PATH => '/usr/bin:/bin', LC_ALL => 'C.UTF-8');
exec { 'tar' } 'tar', '-C', '/box', @tar or die "tar: $!\n";
`;

/**
 * Connects to a port inside and hands the connection over, as Node's processes do among themselves: standard output is that
 * channel. Arguments: marker, uid, process 1 with its start time, port.
 */
const CONNECT = String.raw`
my ($marker, $uid, $holder, $holder_start, $port) = @ARGV;
$0 = 'longhaul-connect';
my $pidfd = call('pidfd_open', $holder + 0, 0);
start_time($holder) eq $holder_start or die "it is gone\n";
become($uid + 0) if $uid >= 0;
call('prctl', 38, 1, 0, 0, 0);
call('setns', $pidfd, 0x10000000 | 0x40000000);
my ($socket, $why);
for ([ 2, pack('S n C4 x8', 2, $port, 127, 0, 0, 1) ], [ 10, pack('S n N x15 C N', 10, $port, 0, 1, 0) ]) {
  socket(my $try, $_->[0], 1, 0) or next;
  if (connect($try, $_->[1])) { $socket = $try; last }
  $why //= $!;
}
defined $socket or die "port $port: $why\n";
my $message = qq({"cmd":"NODE_HANDLE","type":"net.Socket","msg":"connected"}\n);
my $vector = pack('P Q', $message, length $message);
my $control = pack('Q i i i x4', 20, 1, 1, fileno $socket);
call('sendmsg', 1, pack('Q L x4 P Q P Q l x4', 0, 0, $vector, 1, $control, length $control, 0), 0);
# The channel stays until the other side has it.
open(my $channel, '<&=', 1);
sysread($channel, my $taken, 256);
`;

export interface Scripts {
  holder: string;
  run: string;
  supervisor: string;
  pack: string;
  connect: string;
}

/** The programs for one architecture. */
export function scriptsFor(table: SyscallTable): Scripts {
  const numbers = Object.entries(table.calls).map(([name, number]) => `${name} => ${number}`);
  const prelude = `our %n; BEGIN { %n = (${numbers.join(', ')}) } ${PRELUDE}`;
  return {
    holder: prelude + ROOT + HOLDER,
    run: prelude + ENTER + RUN,
    supervisor: prelude + ENTER + USAGE + SUPERVISOR,
    pack: prelude + ROOT + PACK,
    connect: prelude + CONNECT,
  };
}
