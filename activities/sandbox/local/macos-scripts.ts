/**
 * Runs one command and outlives whoever started it, with what macOS has: no /proc, no namespaces. Argument: the exec folder,
 * whose file "request" holds time limit, output limit and the wrapped command. It keeps the journal's format. What leaves the
 * command's process group is out of reach.
 */
export const MACOS_SUPERVISOR = String.raw`
use POSIX ();
my ($dir) = @ARGV;
umask 077;
sub put { my ($name, $text) = @_; open(my $f, '>', "$dir/$name.tmp") or exit 1; print $f $text; close $f; rename("$dir/$name.tmp", "$dir/$name") or exit 1 }
my $asked = 0;
$SIG{TERM} = sub { $asked = 1 };
open(my $request, '<', "$dir/request") or exit 1;
my ($timeout_ms, $output_limit, $command) = split /\0/, do { local $/; <$request> }, 3;
mkdir("$dir/claim") or exit 0;
my $started = $ENV{LC_ALL} = 'C';
$started = qx(ps -o lstart= -p $$);
$started =~ s/^\s+|\s+$//g;
$started =~ s/\s+/_/g;
put('supervisor', "$$ $started");
my $child = fork() // exit 1;
if ($child == 0) {
  $SIG{TERM} = 'DEFAULT';
  POSIX::setsid();
  open(STDIN, '<', "$dir/stdin") or exit 125;
  open(STDOUT, '>', "$dir/out") or exit 125;
  open(STDERR, '>', "$dir/err") or exit 125;
  exec('/bin/bash', '-c', $command) or exit 126;
}
close STDOUT;
my ($end, $why, $status) = (time + $timeout_ms / 1000, '', 0);
while (1) {
  my $done = waitpid($child, POSIX::WNOHANG());
  if ($done == $child) { $status = $?; last }
  $why ||= 'signal' if $asked;
  $why ||= 'timeout' if time >= $end;
  $why ||= 'output_limit' if (-s "$dir/out" || 0) + (-s "$dir/err" || 0) > $output_limit;
  if ($why) { kill('KILL', -$child); kill('KILL', $child); waitpid($child, 0); last }
  select(undef, undef, undef, 0.02);
}
my ($code, $signal) = ($status >> 8, $status & 127);
put('exit.json', qq({"code":$code,"signal":$signal,"killed":"$why","lost":false}));
`;

/** File work, behind the same filter as commands. Arguments: operation, path, what it needs. */
export const MACOS_FILES = String.raw`
my ($operation, $path, $size) = @ARGV;
sub describe { my ($name, $file) = @_; my @s = -l $file ? lstat _ : stat $file; my $type = -l $file ? 'symlink' : -d _ ? 'directory' : -f _ ? 'file' : 'other'; print join("\0", $name, $type, $s[7] // 0, ($s[9] // 0) * 1000), "\0" }
if ($operation eq 'stat') { -e $path or exit 0; @s = stat $path; print join("\0", '', -d _ ? 'directory' : -f _ ? 'file' : 'other', $s[7], $s[9] * 1000), "\0" }
elsif ($operation eq 'list') { opendir(my $d, $path) or die "$!\n"; for (readdir $d) { describe($_, "$path/$_") unless /^\.\.?$/ } }
elsif ($operation eq 'read') { -f $path or die "is no file\n"; open(my $f, '<:raw', $path) or die "$!\n"; read($f, my $text, $size); print $text }
elsif ($operation eq 'remove') { -e $path || -l $path or exit 0; system('/bin/rm', '-rf', '--', $path) == 0 or die "rm failed\n"; print 'removed' }
elsif ($operation eq 'write') {
  -d $path and die "is a folder\n";
  my $made = ''; my @parts = split m{/}, $path; pop @parts; for (@parts) { next if $_ eq ''; $made .= "/$_"; -d $made or mkdir $made }
  my $mode = (stat $path)[2] // 0644;
  open(my $f, '>:raw', "$path.$$") or die "$!\n";
  my $got = 0; while (read(STDIN, my $text, 65536)) { print $f $text; $got += length $text }
  close $f;
  if ($got != $size) { unlink "$path.$$"; die "broke off\n" }
  chmod($mode & 07777, "$path.$$");
  rename("$path.$$", $path) or die "$!\n";
}
`;
