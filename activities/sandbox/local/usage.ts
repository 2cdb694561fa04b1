/**
 * What a sandbox uses. Memory: for where no control group counts it, as an ordinary user, and as root in a container that
 * may make none. Part of the supervisor; Perl for the same reasons.
 */
export const USAGE = String.raw`
sub text { my ($file) = @_; open(my $f, '<', $file) or return ''; local $/; my $text = <$f>; return defined $text ? $text : '' }
sub fields { my ($text, @names) = @_; my $sum = 0; for my $name (@names) { $sum += $1 if $text =~ /^$name:\s+(\d+)/m } return $sum }
# The sandbox's file systems in memory: their pages are nobody's unless somebody maps them.
sub tmpfs_kib {
  my ($root) = @_;
  my $sum = 0;
  for my $path ("$root/dev/shm", "$root/run") {
    my $b = "\0" x 120;
    syscall($n{statfs}, $path, $b) == 0 or next;
    my (undef, $block, $blocks, $free) = unpack('q4', $b);
    $sum += ($blocks - $free) * $block / 1024;
  }
  return $sum;
}
# What it uses at the most, quickly: pages that processes share are counted for each of them. The /proc is the sandbox's
# own, so that the other processes of the machine cost nothing. Program files are the machine's and do not count.
sub most_kib {
  my ($root) = @_;
  opendir(my $proc, "$root/proc") or return 0;
  my $sum = tmpfs_kib($root);
  for my $pid (readdir $proc) { $sum += fields(text("$root/proc/$pid/status"), qw(RssAnon RssShmem VmSwap)) if $pid =~ /^\d+$/ && $pid > 1 }
  return $sum;
}
# The processes of a sandbox but its first. Of those with one memory (vfork), one.
sub users_of {
  my ($holder) = @_;
  my $space = readlink("/proc/$holder/ns/pid") // return ();
  opendir(my $proc, '/proc') or return ();
  my @all = map { $_ + 0 } grep { /^\d+$/ && $_ != $holder && (readlink("/proc/$_/ns/pid") // '') eq $space } readdir $proc;
  my $order = sub { my $r = syscall($n{kcmp}, $_[0], $_[1], 1, 0, 0); return $r == 1 ? -1 : $r == 2 ? 1 : $r == 0 ? 0 : $_[0] <=> $_[1] };
  my @unique;
  for my $pid (sort { $order->($a, $b) } @all) { push @unique, $pid if !@unique || $order->($unique[-1], $pid) != 0 }
  return @unique;
}
# Seconds of a processor this process has used: on a busy machine the clock on the wall runs on while it waits its turn.
sub spent { my $b = "\0" x 16; syscall($n{clock_gettime}, 2, $b); my ($s, $ns) = unpack('q2', $b); return $s + $ns / 1e9 }
# What it uses, and the host name namespace of the command that uses most of it. A shared page counts once. Looking at
# a gibibyte takes the kernel some ten milliseconds for each process that maps it: the work is bounded, the order is by
# chance, and those not looked at count like the others.
sub exact_kib {
  my ($holder) = @_;
  my @pids = map { $_->[1] } sort { $a->[0] <=> $b->[0] } map { [ rand(), $_ ] } users_of($holder);
  my ($own, $shared, $seen, $end, %group) = (0, 0, 0, spent() + 1);
  for my $pid (@pids) {
    last if $seen && spent() > $end;
    $seen += 1;
    my $rollup = text("/proc/$pid/smaps_rollup");
    my ($mine, $ours) = (fields($rollup, qw(Pss_Anon SwapPss)), fields($rollup, 'Pss_Shmem'));
    $own += $mine;
    $shared += $ours;
    $group{readlink("/proc/$pid/ns/uts") // ''} += $mine + $ours;
  }
  my ($largest) = sort { $group{$b} <=> $group{$a} } keys %group;
  my $scale = $seen ? @pids / $seen : 1;
  my $files = tmpfs_kib("/proc/$holder/root");
  # Mapped files of those file systems are in both.
  return ($own * $scale + ($shared * $scale > $files ? $shared * $scale : $files), $largest // '');
}
# KiB on the disk of files that have no name any more and are open.
sub deleted_kib {
  my ($root, $folder) = @_;
  my $device = (stat $folder)[0] // return 0;
  my ($sum, $end, %seen) = (0, spent() + 1);
  opendir(my $proc, "$root/proc") or return 0;
  for my $pid (grep { /^\d+$/ && $_ > 1 } readdir $proc) {
    last if spent() > $end;
    opendir(my $open, "$root/proc/$pid/fd") or next;
    for my $file (readdir $open) {
      my ($at, $inode, $links, $blocks) = (stat "$root/proc/$pid/fd/$file")[0, 1, 3, 12];
      $sum += $blocks / 2 if defined $links && $links == 0 && $at == $device && !$seen{$inode}++;
    }
  }
  return $sum;
}
`;
