/** A claim this old without its supervisor's signature is that of a supervisor that was killed right there. */
export const CLAIM_MS = 15_000;

/**
 * Runs one command and outlives whoever started it. Started ahead of the command, since half of the time a start takes goes
 * into what does not depend on it: perl, and joining the control groups, for which the kernel waits until all processors
 * have passed a quiet point.
 * Arguments: marker, uid, control groups. Standard input, a line each: process 1 of the sandbox with its start time; the exec
 * folder, whose file "request" holds the rest, separated by NUL. Its end without the lines ends this process, as does, after
 * the first one, the end of the sandbox. Standard output: s (signed), o (output was written), e (the command ended), for who started it.
 * The claim (mkdir) makes a second start of the same id a no-op; exit.json is written by rename.
 */
export const SUPERVISOR = String.raw`
my ($marker, $uid, $groups) = @ARGV;
my ($holder, $holder_start);
$0 = "longhaul-exec $marker";
umask 077;
my ($asked, $poked) = (0, 0);
$SIG{TERM} = sub { $asked = 1 };
$SIG{USR1} = sub { $poked = 1 };
# Who started it may be gone, and so may be the command that is fed.
$SIG{PIPE} = 'IGNORE';
my ($dir, $text);
sub put { my ($name, $text) = @_; open(my $f, '>', "$dir/$name.tmp") or exit 1; print $f $text; close $f; rename("$dir/$name.tmp", "$dir/$name") or exit 1 }
my @groups = split /:/, $groups // '';
my ($filter, $timeout_ms, $output_limit, $disk_kib, $memory_kib, $processors, $box, $stdin, $cwd, %limits, %env, @command);
sub take_request {
  my ($limits, $count, @rest);
  ($filter, $timeout_ms, $output_limit, $disk_kib, $memory_kib, $processors, $box, $limits, $stdin, $cwd, $count, @rest)
    = split /\0/, $_[0], -1;
  for (1 .. $count) { my $key = shift @rest; $env{$key} = shift @rest }
  %limits = map { split /=/ } split /,/, $limits;
  @command = @rest;
}
open(my $tell, '>&', \*STDOUT) or exit 1;
fcntl($tell, 4, 0x800);
my ($child, $ended, $go, $in_write, $out_read, $err_read);
# The process that becomes the command, on its way until it has to know which.
sub prepare {
  my ($alive, $going, $in_read, $out_write, $err_write);
  socketpair($ended, $alive, 1, 1, 0) or exit 1;
  pipe($going, $go) or exit 1;
  pipe($in_read, $in_write) or exit 1;
  pipe($out_read, $out_write) or exit 1;
  pipe($err_read, $err_write) or exit 1;
  # So that the command may open /dev/stdin and /dev/stdout.
  if ($uid >= 0) { chown($uid, $uid, $_) for $in_read, $out_write, $err_write }
  my $self = $$;
  $child = fork();
  defined $child or exit 1;
  if ($child == 0) {
    $parent = $self;
    $SIG{$_} = 'DEFAULT' for qw(TERM USR1 PIPE);
    close $_ for $ended, $go, $in_write, $out_read, $err_read, $tell;
    call('setsid');
    open(STDIN, '<', '/dev/null') or exit 125;
    open(STDOUT, '>&', $out_write) or exit 125;
    open(STDERR, '>&', $err_write) or exit 125;
    close $_ for $out_write, $err_write;
    # Should the machine run out of memory all the same, commands go before the worker, the database and the supervisor.
    if (open(my $f, '>', '/proc/self/oom_score_adj')) { syswrite($f, '1000'); close $f }
    # Never without its limits.
    for my $group (@groups) {
      my $joined = open(my $f, '>', "$group/cgroup.procs");
      $joined &&= syswrite($f, $$);
      if (!$joined) { print STDERR "sandbox: control group: $!\n"; exit 125 }
    }
    ($dir, $holder, $holder_start, $text) = split /\n/, do { local $/; <$going> } // '', 4;
    defined $text or exit 0;
    take_request($text);
    close $going;
    if ($stdin eq 'open') { open(STDIN, '<&', $in_read) or exit 125 }
    elsif ($stdin ne '') { open(STDIN, '<', "$dir/$stdin") or exit 125 }
    close $in_read;
    if ($processors ne '') { my $mask = "\0" x 128; vec($mask, $_, 1) = 1 for split /,/, $processors; call('sched_setaffinity', 0, length $mask, $mask) }
    enter($alive, $marker, $uid, $holder, $holder_start, $filter, $cwd, \%limits, \%env, @command);
  }
}
prepare();
{
  my ($line, $over) = ('');
  while ($line !~ /\n.*\n/) {
    my $bits = '';
    vec($bits, fileno($_), 1) = 1 for grep { defined $_ } \*STDIN, $over;
    select($bits, undef, undef, undef) > 0 or ($asked ? exit 0 : next);
    exit 0 if !vec($bits, fileno(STDIN), 1);
    my $size = sysread(STDIN, $line, 4096, length $line);
    exit 0 if !$size;
    next if defined $over || $line !~ /\n/;
    ($holder, $holder_start) = $line =~ /^(\d+) (\d+)\n/ or exit 1;
    my $life = syscall($n{pidfd_open}, $holder + 0, 0);
    $life >= 0 && start_time($holder) eq $holder_start or exit 1;
    open($over, '<&=', $life) or exit 1;
  }
  $line =~ s/^.*\n//;
  open(STDIN, '<', '/dev/null');
  open(STDOUT, '>', '/dev/null');
  ($dir) = split /\n/, $line;
  open(my $request, '<', "$dir/request") or exit 1;
  $text = do { local $/; <$request> };
  take_request($text);
}
mkdir("$dir/claim") or exit 0;
put('supervisor', "$$ " . start_time($$));
# Whoever looked between the two, this long after the claim, took the command for lost.
if (time() - (stat "$dir/claim")[9] >= ${CLAIM_MS / 1_000}) { put('exit.json', '{"code":0,"signal":0,"killed":"","lost":true}'); exit 0 }
syswrite($tell, 's');
# What waited may have been killed; it had not begun anything.
if (waitpid($child, 1) != 0) { close $_ for $ended, $go, $in_write, $out_read, $err_read; prepare() }
my ($why, $status) = ('');
# Counted by the kernel where a control group holds the memory.
sub oom_kills { my $sum = 0; for my $group (@groups) { for my $name (qw(memory.oom_control memory.events)) { $sum += $1 if text("$group/$name") =~ /^oom_kill (\d+)/m } } return $sum }
my $oom_kills = oom_kills();
my $end = now() + $timeout_ms / 1000;
print $go "$dir\n$holder\n$holder_start\n$text";
close $go;
if ($stdin ne 'open') { close $in_write; undef $in_write }
fcntl($_, 4, 0x800) for grep { defined $_ } $ended, $out_read, $err_read, $in_write;
open(my $out, '>', "$dir/out") or exit 1;
open(my $err, '>', "$dir/err") or exit 1;
my @streams = ([ $out_read, $out ], [ $err_read, $err ]);
my ($written, $over) = (0, 0);
# What is there now, up to the limit; a command that is never done writing does not keep it here.
sub pump {
  my $before = $written;
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
  syswrite($tell, 'o') if $written > $before && defined fileno($tell);
}
# From the file whose bytes stand at their offsets, so that it does not matter who wrote them and how often. True while the
# command has yet to take what is there.
my ($fed, $input) = (0);
sub feed {
  return 0 if !defined $in_write;
  defined $input or open($input, '<', "$dir/input") or return 0;
  my $total = number("$dir/input.end");
  for (1 .. 64) {
    sysseek($input, $fed, 0);
    my $size = sysread($input, my $chunk, 65536);
    if (!$size) { if ($total >= 0 && $fed >= $total) { close $in_write; undef $in_write } return 0 }
    my $taken = syswrite($in_write, $chunk);
    if (defined $taken) { $fed += $taken; next }
    return 1 if $! == 11;
    close $in_write;
    undef $in_write;
    return 0;
  }
  return 1;
}
sub wait_for {
  my ($seconds) = @_;
  my $wanted = feed();
  my ($bits, $takes) = ('', '');
  vec($takes, fileno($in_write), 1) = 1 if $wanted && defined $in_write;
  vec($bits, fileno($_->[0]), 1) = 1 for @streams;
  vec($bits, fileno($ended), 1) = 1 if defined $ended;
  select($bits, $takes, undef, $seconds > 0 && !$poked ? $seconds : 0);
  listen_once() if defined $ended;
}
# The command's host name namespace, told when it is on its way inside and waits there.
my ($uts, $pin) = ('');
sub kin { my $of = $_[0] // $uts; opendir(my $proc, '/proc') or return (); return grep { $of ne '' && (readlink("/proc/$_/ns/uts") // '') eq $of && start_time($_) ne '' } grep { /^\d+$/ && $_ != $child } readdir $proc }
# Stopped first, so that none can have a child while its siblings are killed.
sub slay { for (1 .. 200) { my @all = kin(@_); last if !@all; kill('STOP', @all); kill('KILL', @all); select(undef, undef, undef, 0.005) } }
sub number { open(my $f, '<', $_[0]) or return -1; my $line = <$f>; return defined $line && $line =~ /^(\d+)/ ? $1 : -1 }
# A command that ended normally may leave servers behind, but not so many processes that nothing else can start.
sub crowded { my $now = @groups ? number("$groups[0]/pids.current") : -1; my $max = $limits{6} // 0; $now = scalar kin() if $now < 0; return $max > 0 && $now > $max * 0.8 }
# Each file asks for one signal; what nobody can be given yet waits.
my $next_pass = 0;
sub pass_signals {
  return if !$poked && now() < $next_pass;
  $next_pass = now() + 1;
  $poked = 0;
  opendir(my $folder, $dir) or return;
  for my $file (grep { /^signal\.[0-9a-f-]+$/ } readdir $folder) {
    my @all = kin();
    if (!@all) { $poked = 0; $next_pass = now() + 0.01; last }
    my $name = text("$dir/$file");
    kill($name, @all) if $name =~ /^[A-Z0-9]+$/;
    unlink "$dir/$file";
  }
}
my ($du, $du_pid, $du_end) = (undef, 0, 0);
my $next_disk = now() + 2;
# Counting a large tree takes a while: it goes on beside the waiting, and the pauses between two counts grow with it.
sub disk_full {
  my $now = now();
  if (!$du_pid) {
    return 0 if $now < $next_disk;
    $du_pid = open($du, '-|') // return 0;
    $du_end = $now;
    return 0 if $du_pid;
    # With the rights of the sandbox's user over its own files: it may have locked folders.
    eval { call('setns', call('pidfd_open', $holder + 0, 0), 0x10000000) } if $uid < 0;
    open(STDERR, '>', '/dev/null');
    exec('du', '-skxc', "$box/workspace", "$box/tmp", "$box/session") or exit 1;
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
  return $used + deleted_kib("/proc/$holder/root", "$box/workspace") > $disk_kib;
}
my ($next_memory, $over_since) = (0, 0);
# The limit is the sandbox's, and the command that uses most ends: its own supervisor sees to it, and if that one is dead
# or stopped, any other. Looking takes a fifth of a processor at most.
sub memory_full {
  my $now = now();
  return 0 if !$memory_kib || $now < $next_memory;
  my ($used, $largest) = (most_kib("/proc/$holder/root"), '');
  # A process that forks or ends meanwhile is counted twice: what is a little over is looked at three times.
  for (1 .. 3) {
    last if $used <= $memory_kib * ($largest eq '' ? 0.9 : 1) || ($largest ne '' && $used > $memory_kib * 1.5);
    ($used, $largest) = exact_kib($holder);
  }
  my $end = now();
  $next_memory = $end + 0.1 + 4 * ($end - $now);
  if ($used <= $memory_kib || $largest eq '') { $over_since = 0; return 0 }
  return 1 if $largest eq $uts;
  $over_since ||= $end;
  slay($largest) if $end - $over_since > 2;
  return 0;
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
my $frozen = "$box/../frozen";
while (1) {
  my $done = waitpid($child, 1);
  if ($done == $child) { $status = $?; last }
  if ($done == -1) { $status = 9; last }
  pump();
  # Frozen: its time stands still, and nothing could be killed.
  if (-e $frozen) { my $from = now(); select(undef, undef, undef, 0.1); $end += now() - $from; next }
  pass_signals();
  $why ||= 'signal' if $asked;
  $why ||= 'timeout' if now() >= $end;
  $why ||= 'output_limit' if $over;
  $why ||= 'memory_limit' if memory_full();
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
unlink "$dir/request";
unlink "$dir/$stdin" if $stdin ne '' && $stdin ne 'open';
my ($code, $signal) = ($status >> 8, $status & 127);
# A file as large as the disk limit allows.
$why ||= 'disk_limit' if $signal == 25;
$why ||= 'memory_limit' if $signal == 9 && oom_kills() > $oom_kills;
# Killed, and not by us: either its own doing or the end of the sandbox.
if (!$why && ($signal == 9 || $code == 125)) { for (1 .. 20) { last if start_time($holder) ne $holder_start; select(undef, undef, undef, 0.01) } }
my $lost = !$why && start_time($holder) ne $holder_start ? 'true' : 'false';
put('exit.json', qq({"code":$code,"signal":$signal,"killed":"$why","lost":$lost}));
syswrite($tell, 'e');
close $tell;
undef $in_write;
# Servers it left behind still write to its output and to the disk, and use memory.
my $next_look = 0;
while (now() < $next_look || kin()) {
  $next_look = now() + 1 if now() >= $next_look;
  pump();
  if ($asked || $over || memory_full() || disk_full()) { slay(); last }
  wait_for($memory_kib ? 0.2 : 1);
}
if ($du_pid) { kill('KILL', $du_pid); waitpid($du_pid, 0) }
`;
