/**
 * Stands between us and a server of a harness: it writes the server's record before the server starts, so that no server
 * runs that nobody can find; it ends the server when nobody has used it for a while or its home is gone; and it keeps its
 * log short. In perl, which the local sandbox needs as well: it costs 8 MB where node would cost 40.
 *
 * Arguments: record file, record with %PID% and %START% in it, file that users touch, idle seconds, log file, bytes of
 * log, then the command. Ends with the server.
 */
export const KEEPER = String.raw`
use strict; use warnings; use POSIX ':sys_wait_h';
my ($record, $template, $used, $idle, $log, $max, @command) = @ARGV;
$0 = "longhaul-harness-keeper";
pipe(my $gate, my $open) or exit 71;
my $pid = fork();
exit 71 unless defined $pid;
if ($pid == 0) {
  close $open;
  # Without the keeper's word there is no record, and nothing starts.
  sysread($gate, my $go, 1) == 1 or exit 70;
  close $gate;
  setpgrp(0, 0);
  open(STDIN, '<', '/dev/null'); open(STDOUT, '>>', $log); open(STDERR, '>>', $log);
  { no warnings; exec { $command[0] } @command; }
  print STDERR "could not be started: $!\n";
  POSIX::_exit(127);
}
close $gate;
sub started {
  if (open(my $stat, '<', "/proc/$_[0]/stat")) {
    my $line = <$stat>; $line =~ s/^.*\) //s;
    return (split(' ', $line))[19];
  }
  my $text = qx(ps -o lstart= -p $_[0]); $text =~ s/^\s+|\s+$//g; $text =~ s/\s+/_/g;
  return $text;
}
my $start = started($pid);
$template =~ s/%PID%/$pid/; $template =~ s/%START%/$start/;
umask 077;
open(my $out, '>', "$record.$$") or exit 72;
print $out $template; close($out) or exit 72;
rename("$record.$$", $record) or exit 72;
syswrite($open, 'g'); close $open;
print STDOUT "kept $pid\n"; close STDOUT; close STDERR;
my $ending = 0;
$SIG{TERM} = $SIG{INT} = sub { $ending = 1; };
$SIG{HUP} = 'IGNORE';
my $end_by = 0;
while (waitpid($pid, WNOHANG) == 0) {
  if ($end_by) { kill 'KILL', $pid if time > $end_by; }
  elsif ($ending || idle()) { $end_by = time + 5; kill 'TERM', $pid; }
  truncate($log, 0) if (-s $log // 0) > $max;
  select(undef, undef, undef, $end_by ? 0.05 : 1);
}
sub idle {
  my $touched = (stat $used)[9];
  return 1 unless defined $touched;
  return time - $touched > $idle;
}
`;
