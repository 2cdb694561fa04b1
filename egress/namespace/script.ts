interface CallNumbers {
  pidfd_open: number;
  prctl: number;
  sendmsg: number;
  setgroups: number;
  setns: number;
  setresgid: number;
  setresuid: number;
}

/** System call numbers (asm/unistd_64.h and asm-generic/unistd.h). */
const CALLS: Partial<Record<NodeJS.Architecture, CallNumbers>> = {
  x64: { pidfd_open: 434, prctl: 157, sendmsg: 46, setgroups: 116, setns: 308, setresgid: 119, setresuid: 117 },
  arm64: { pidfd_open: 434, prctl: 167, sendmsg: 211, setgroups: 159, setns: 268, setresgid: 149, setresuid: 147 },
};

/**
 * Goes into the network namespace of a process, makes a socket there and hands it to Node over the IPC channel it was
 * started with (descriptor 3). Perl, because it starts in two milliseconds and can call the kernel directly: a Node process
 * that does the same takes fifty. A socket belongs for good to the namespace it was made in, so nothing of ours stays.
 * Arguments: listen or connect, pid and start time of the process, port on 127.0.0.1.
 */
const PORTER = String.raw`
my ($mode, $pid, $started, $port) = @ARGV;
$0 = 'longhaul-porter';
sub call { my ($name, @args) = @_; my $r = syscall($n{$name}, @args); $r >= 0 or die "$name: $!\n"; return $r }
sub start_time { open(my $f, '<', "/proc/$_[0]/stat") or return ''; my $line = <$f>; defined $line or return ''; $line =~ s/^.*\) //s; my @v = split / /, $line; return $v[0] eq 'Z' ? '' : $v[19] }
# Whoever started this may end before it has its answer.
call('prctl', 1, 9, 0, 0, 0);
# From here on the number cannot become another process's.
my $pidfd = call('pidfd_open', $pid + 0, 0);
start_time($pid) eq $started or die "gone\n";
my ($user, $net) = (0x10000000, 0x40000000);
if (syscall($n{setns}, $pidfd, $net) < 0) {
  # Not the machine's root: its owner may join its user namespace, and then the network that belongs to that.
  my $owner = (stat("/proc/$pid"))[4];
  defined $owner or die "gone\n";
  if ($> == 0 && $owner != 0 && syscall($n{setns}, $pidfd, $user | $net) < 0) {
    call('setgroups', 0, 0);
    call('setresgid', $owner, $owner, $owner);
    call('setresuid', $owner, $owner, $owner);
    call('setns', $pidfd, $user | $net);
  } elsif ($> != 0) { call('setns', $pidfd, $user | $net) }
  elsif ($owner == 0) { die "setns: refused\n" }
}
# A sandbox without a network of its own: a listener there would serve the whole machine.
readlink('/proc/self/ns/net') ne $home or die "own network\n";
socket(my $s, 2, 1, 0) or die "socket: $!\n";
my $address = pack('S n C4 x8', 2, $port, 127, 0, 0, 1);
if ($mode eq 'listen') {
  setsockopt($s, 1, 2, pack('i', 1)) or die "setsockopt: $!\n";
  bind($s, $address) or die "bind: $!\n";
  listen($s, 511) or die "listen: $!\n";
} else { connect($s, $address) or die "connect: $!\n" }
my $type = $mode eq 'listen' ? 'net.Server' : 'net.Socket';
my $text = qq({"cmd":"NODE_HANDLE","type":"$type","msg":{"type":"socket"}}\n);
my $data = pack('P Q', $text, length $text);
my $rights = pack('Q i i i x4', 20, 1, 1, fileno($s));
my $message = pack('Q L x4 P Q P Q i x4', 0, 0, $data, 1, $rights, length $rights, 0);
call('sendmsg', 3, $message, 0) == length $text or die "sendmsg: short\n";
# Node answers once it has the descriptor.
open(my $channel, '<&=', 3);
sysread($channel, my $answer, 4096);
`;

/** The program for one architecture; null where there are no numbers for it. */
export function porterScript(arch: NodeJS.Architecture): string | null {
  const calls = CALLS[arch];
  if (calls === undefined) return null;
  const numbers = Object.entries(calls).map(([name, number]) => `${name} => ${number}`);
  return `our %n = (${numbers.join(', ')}); our $home = readlink('/proc/self/ns/net'); ${PORTER}`;
}
