import type { SyscallTable } from './kernel.ts';

/**
 * The programs the provider runs. Perl, because it starts in two milliseconds, can call the kernel directly and is part
 * of every Debian's base system; a Node process per command would take forty.
 */
const PRELUDE = String.raw`
$| = 1;
# A copy of the arguments: syscall() may write to strings, and takes numbers only from numeric scalars.
sub call { my ($name, @args) = @_; my $r = syscall($n{$name}, @args); $r >= 0 or die "$name: $!\n"; return $r }
# The worker may have been given files that close on no exec.
call('close_range', 3, 0xffffffff, 0);
sub start_time { open(my $f, '<', "/proc/$_[0]/stat") or return ''; my $line = <$f>; defined $line or return ''; $line =~ s/^.*\) //s; my @v = split / /, $line; return $v[0] eq 'Z' ? '' : $v[19] }
sub become { my ($uid) = @_; call('setgroups', 0, 0); call('setresgid', $uid, $uid, $uid); call('setresuid', $uid, $uid, $uid) }
# Flags of mount_setattr: 1 read-only, 2 no setuid, 4 no devices, 8 no programs; of its lookup: 0x8000 recursive.
sub attributes { my ($path, $flags, $deep) = @_; call('mount_setattr', -100, $path, $deep ? 0x8000 : 0, pack('Q4', $flags, 0, 0, 0), 32) }
`;

/**
 * Becomes process 1 of a sandbox's namespaces, in a root file system of its own. The host's is unmounted there: what a
 * process of the sandbox can reach through another one's /proc entry is never more than its own root.
 * Arguments: the sandbox's uid (-1: stay), the folder with workspace and tmp, a marker that names the sandbox, then what
 * the root shows: bind:<path>, link:<path>=<target>, file:<path>=<content>.
 * Prints its pid as the host sees it, then "ready", and waits for "go": a starter that died before it wrote the pid down
 * leaves nothing behind.
 */
const HOLDER = String.raw`
my ($uid, $box, $marker, @shown) = @ARGV;
$0 = "longhaul-sandbox $marker";
umask 022;
# The working directory keeps the box reachable for a uid that could not walk to it.
chdir $box or die "$box: $!\n";
become($uid + 0) if $uid >= 0;
my ($outer_uid, $outer_gid) = ($> + 0, (split / /, $))[0] + 0);
call('prctl', 38, 1, 0, 0, 0);
# Changing the uid made /proc/self root's, where the maps below are written.
call('prctl', 4, 1, 0, 0, 0);
sub put { my ($file, $text) = @_; open(my $f, '>', $file) or die "$file: $!\n"; syswrite($f, $text) == length $text or die "$file: $!\n"; close $f }
# User, mount, network, process, IPC and host name namespace.
call('unshare', 0x10000000 | 0x20000 | 0x40000000 | 0x20000000 | 0x8000000 | 0x4000000);
put('/proc/self/setgroups', 'deny');
put('/proc/self/uid_map', "0 $outer_uid 1");
put('/proc/self/gid_map', "0 $outer_gid 1");
pipe(my $settled, my $settling) or die "pipe: $!\n";
my $pid = fork();
defined $pid or die "fork: $!\n";
# The starter takes the end of this process for the end of the conversation.
if ($pid) { close $settling; print "pid $pid\n"; sysread($settled, my $none, 1); exit 0 }
close $settled;
sub folder { my ($path) = @_; my $made = ''; for my $part (split m{/}, substr($path, 1)) { $made .= "/$part"; mkdir $made } }
my $root = '/tmp';
sub show { my ($from, $to, $flags) = @_;
  if (-d $from) { folder($to) } else { folder($to =~ s{/[^/]*$}{}r); open(my $f, '>>', $to) or die "$to: $!\n" }
  call('mount', $from, $to, 0, 0x1000 | 0x4000, 0);
  attributes($to, $flags, 1);
}
sub tmpfs { my ($to, $options) = @_; folder($to); call('mount', 'tmpfs', $to, 'tmpfs', 2 | 4, $options) }
call('mount', 'none', '/', 0, 0x4000 | 0x40000, 0);
tmpfs($root, 'mode=0755,size=1m');
for (@shown) {
  my ($kind, $path, $rest) = /^(bind|link|file):([^=]+)=?(.*)$/s or die "argument: $_\n";
  if ($kind eq 'bind') { show($path, "$root$path", 1 | 2 | 4) }
  elsif ($kind eq 'link') { folder("$root$path" =~ s{/[^/]*$}{}r); symlink($rest, "$root$path") or die "$path: $!\n" }
  else { folder("$root$path" =~ s{/[^/]*$}{}r); put("$root$path", $rest) }
}
folder("$root/dev");
for my $name (qw(null zero full random urandom tty)) { show("/dev/$name", "$root/dev/$name", 2 | 8) }
folder("$root/dev/pts");
call('mount', 'devpts', "$root/dev/pts", 'devpts', 2 | 8, 'newinstance,ptmxmode=0666,mode=0620');
for ([ 'pts/ptmx', 'ptmx' ], [ '/proc/self/fd', 'fd' ], [ 'fd/0', 'stdin' ], [ 'fd/1', 'stdout' ], [ 'fd/2', 'stderr' ]) { symlink($_->[0], "$root/dev/$_->[1]") }
tmpfs("$root/dev/shm", 'mode=1777,size=64m,nr_inodes=16384');
tmpfs("$root/run", 'mode=0755,size=16m,nr_inodes=4096');
show('workspace', "$root/workspace", 2 | 4);
show('tmp', "$root/tmp", 2 | 4);
folder("$root/proc");
call('mount', 'proc', "$root/proc", 'proc', 2 | 4 | 8, 0);
for my $name (qw(sys sysrq-trigger irq bus fs)) {
  my $path = "$root/proc/$name";
  -e $path or next;
  call('mount', $path, $path, 0, 0x1000 | 0x4000, 0);
  attributes($path, 1 | 2 | 4 | 8, 1);
}
attributes($root, 1 | 2 | 4, 0);
chdir $root or die "$root: $!\n";
call('pivot_root', '.', '.');
call('umount2', '.', 2);
chdir '/' or die "/: $!\n";
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
sub limit {
  my ($resource, $value) = @_;
  my $old = "\0" x 16;
  syscall($n{prlimit64}, 0, $resource, 0, $old) == 0 or die "prlimit64: $!\n";
  my (undef, $hard) = unpack('Q2', $old);
  $value = $hard if $hard < $value;
  call('prlimit64', 0, $resource, pack('Q2', $value, $value), 0);
}
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
    call('unshare', 0x4000000);
    if ($tell) { syswrite($tell, readlink('/proc/self/ns/uts')); sysread($tell, my $ok, 1) or die "left alone\n" }
    call('setns', $pidfd, 0x20000 | 0x40000000 | 0x20000000 | 0x8000000);
    call('prctl', 1, 9, 0, 0, 0);
    chdir '/';
    my $pid = fork();
    defined $pid or die "fork: $!\n";
    if ($pid) {
      waitpid($pid, 0);
      my $signal = $? & 127;
      exit($? >> 8) if !$signal;
      $SIG{$_} = 'DEFAULT' for keys %SIG;
      kill($signal, $$);
      exit(128 + $signal);
    }
    limit($_ + 0, $limits->{$_} + 0) for keys %$limits;
    confine($filter);
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
 * Runs one command and outlives whoever started it. Argument: the exec folder, whose file "request" holds the rest,
 * separated by NUL. The claim (mkdir) makes a second start of the same id a no-op; exit.json is written by rename.
 */
const SUPERVISOR = String.raw`
my ($dir) = @ARGV;
sub put { my ($name, $text) = @_; open(my $f, '>', "$dir/$name.tmp") or exit 1; print $f $text; close $f; rename("$dir/$name.tmp", "$dir/$name") or exit 1 }
sub now { my $b = "\0" x 16; syscall($n{clock_gettime}, 1, $b); my ($s, $ns) = unpack('q2', $b); return $s + $ns / 1e9 }
umask 077;
open(my $request, '<', "$dir/request") or exit 1;
mkdir("$dir/claim") or exit 0;
put('supervisor', "$$ " . start_time($$));
my ($marker, $uid, $holder, $holder_start, $filter, $timeout_ms, $output_limit, $disk_kib, $box, $groups, $limits, $cwd, $env_count, @rest)
  = split /\0/, do { local $/; <$request> }, -1;
close $request;
$0 = "longhaul-exec $marker";
my %env;
for (1 .. $env_count) { my $key = shift @rest; $env{$key} = shift @rest }
my %limits = map { split /=/ } split /,/, $limits;
my @groups = split /:/, $groups;
my ($asked, $why, $status) = (0, '');
my $end = now() + $timeout_ms / 1000;
$SIG{TERM} = sub { $asked = 1 };
socketpair(my $ended, my $alive, 1, 1, 0) or exit 1;
pipe(my $out_read, my $out_write) or exit 1;
pipe(my $err_read, my $err_write) or exit 1;
# So that the command may open /dev/stdout.
if ($uid >= 0) { chown($uid, $uid, $_) for $out_write, $err_write }
my $child = fork();
defined $child or exit 1;
if ($child == 0) {
  $SIG{TERM} = 'DEFAULT';
  close $ended;
  call('setsid');
  for my $group (@groups) { open(my $f, '>', "$group/cgroup.procs") or next; syswrite($f, $$); close $f }
  open(STDIN, '<', -e "$dir/stdin" ? "$dir/stdin" : '/dev/null') or exit 125;
  open(STDOUT, '>&', $out_write) or exit 125;
  open(STDERR, '>&', $err_write) or exit 125;
  enter($alive, $marker, $uid, $holder, $holder_start, $filter, $cwd, \%limits, \%env, @rest);
}
close $_ for $alive, $out_write, $err_write;
fcntl($_, 4, 0x800) for $ended, $out_read, $err_read;
open(my $out, '>', "$dir/out") or exit 1;
open(my $err, '>', "$dir/err") or exit 1;
my @streams = ([ $out_read, $out ], [ $err_read, $err ]);
my ($written, $over) = (0, 0);
# What is there now, up to the limit; a command that is never done writing does not keep it here.
sub pump {
  for my $stream (my @all = @streams) {
    for (1 .. 64) {
      my $size = sysread($stream->[0], my $chunk, 65536);
      last if !defined $size;
      if ($size == 0) { @streams = grep { $_ != $stream } @streams; last }
      if ($written + $size > $output_limit) { $over = 1; $chunk = substr($chunk, 0, $output_limit - $written) }
      $written += length $chunk;
      length $chunk == 0 or defined syswrite($stream->[1], $chunk) or $over = 1;
    }
  }
}
sub wait_for {
  my ($seconds) = @_;
  my $bits = '';
  vec($bits, fileno($_->[0]), 1) = 1 for @streams;
  vec($bits, fileno($ended), 1) = 1 if defined $ended;
  select($bits, undef, undef, $seconds > 0 ? $seconds : 0);
  listen_once() if defined $ended;
}
# The command's host name namespace, told when it is on its way inside and waits there.
my ($uts, $pin) = ('');
sub kin { opendir(my $proc, '/proc') or return (); return grep { $uts ne '' && (readlink("/proc/$_/ns/uts") // '') eq $uts && start_time($_) ne '' } grep { /^\d+$/ && $_ != $child } readdir $proc }
# Stopped first, so that none can have a child while its siblings are killed.
sub slay { for (1 .. 200) { my @all = kin(); last if !@all; kill('STOP', @all); kill('KILL', @all); select(undef, undef, undef, 0.005) } }
sub number { open(my $f, '<', $_[0]) or return -1; my $line = <$f>; return defined $line && $line =~ /^(\d+)/ ? $1 : -1 }
# A command that ended normally may leave servers behind, but not so many processes that nothing else can start.
sub crowded { my $now = @groups ? number("$groups[0]/pids.current") : -1; my $max = $limits{6} // 0; $now = scalar kin() if $now < 0; return $max > 0 && $now > $max * 0.8 }
my ($du, $du_pid, $du_end) = (undef, 0, 0);
my $next_disk = now() + 2;
# Counting a large tree takes a while: it goes on beside the waiting, and the pauses between two counts grow with it.
sub disk_full {
  my $now = now();
  if (!$du_pid) {
    return 0 if $now < $next_disk;
    $du_pid = open($du, '-|', 'du', '-skxc', "$box/workspace", "$box/tmp") or return 0;
    $du_end = $now;
    return 0;
  }
  if (waitpid($du_pid, 1) == 0) {
    return 0 if $now - $du_end < 30;
    kill('KILL', $du_pid);
    waitpid($du_pid, 0);
    $du_pid = 0;
    return 1;
  }
  my $used = 0;
  while (my $line = <$du>) { $used = $1 if $line =~ /^(\d+)\s+total/ }
  close $du;
  $du_pid = 0;
  $next_disk = $now + 2 + 10 * ($now - $du_end);
  return $used > $disk_kib;
}
sub listen_once {
  my $read = sysread($ended, my $told, 64);
  return if !defined $read;
  if ($read == 0) { undef $ended; return }
  # Open, so that the kernel does not give its number to the namespace of another command.
  open($pin, '<', "/proc/$child/ns/uts") or return;
  $uts = $told;
  syswrite($ended, '1');
}
while (1) {
  my $done = waitpid($child, 1);
  if ($done == $child) { $status = $?; last }
  if ($done == -1) { $status = 9; last }
  pump();
  $why ||= 'signal' if $asked;
  $why ||= 'timeout' if now() >= $end;
  $why ||= 'output_limit' if $over;
  $why ||= 'disk_limit' if disk_full();
  if ($why) { listen_once() if defined $ended; slay(); kill('KILL', $child); waitpid($child, 0); $status = 9; last }
  # The pipe of the child closes when it ends, a moment before it can be waited for.
  my $left = $end - now();
  wait_for(defined $ended ? ($left < 0.1 ? $left : 0.1) : 0.001);
}
listen_once() if defined $ended;
undef $ended;
slay() if !$why && crowded();
# All that the command itself wrote is in the pipes.
pump();
unlink "$dir/request", "$dir/stdin";
my ($code, $signal) = ($status >> 8, $status & 127);
# A file as large as the disk limit allows.
$why ||= 'disk_limit' if $signal == 25;
# Killed, and not by us: either its own doing or the end of the sandbox.
if (!$why && ($signal == 9 || $code == 125)) { for (1 .. 20) { last if start_time($holder) ne $holder_start; select(undef, undef, undef, 0.01) } }
my $lost = !$why && start_time($holder) ne $holder_start ? 'true' : 'false';
put('exit.json', qq({"code":$code,"signal":$signal,"killed":"$why","lost":$lost}));
# Servers it left behind still write to its output and to the disk.
while (kin()) {
  pump();
  if ($asked || $over || disk_full()) { slay(); last }
  wait_for(1);
}
if ($du_pid) { kill('KILL', $du_pid); waitpid($du_pid, 0) }
`;

export interface Scripts {
  holder: string;
  run: string;
  supervisor: string;
}

/** The programs for one architecture. */
export function scriptsFor(table: SyscallTable): Scripts {
  const numbers = Object.entries(table.calls).map(([name, number]) => `${name} => ${number}`);
  const prelude = `our %n; BEGIN { %n = (${numbers.join(', ')}) } ${PRELUDE}`;
  return { holder: prelude + HOLDER, run: prelude + ENTER + RUN, supervisor: prelude + ENTER + SUPERVISOR };
}
