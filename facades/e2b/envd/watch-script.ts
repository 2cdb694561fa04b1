/** Numbers of the two calls, by the name `uname -m` gives a machine. */
const CALLS = { x86_64: [294, 254], aarch64: [26, 27] } as const;

/**
 * Watches a folder by inotify and prints a line an event: its type, then the name in hex. Perl, because every Debian base
 * system has it and it can call the kernel directly. Arguments: folder, whether what is below counts too, most folders.
 * "-" says that the watch is up; "!<reason>" that it cannot be.
 */
const SCRIPT = String.raw`
use POSIX ();
$| = 1;
my ($root, $recursive, $most) = @ARGV;
my %calls = (${Object.entries(CALLS)
  .map(([machine, numbers]) => `${machine} => [${numbers.join(', ')}]`)
  .join(', ')});
my $numbers = $calls{(POSIX::uname())[4]} or fail('machine');
sub fail { print "!$_[0]\n"; exit 1 }
-e $root or fail('missing');
-d $root or fail('file');
my $fd = syscall($numbers->[0], 0x80000);
$fd >= 0 or fail("inotify: $!");
# MODIFY, ATTRIB, MOVED_FROM, MOVED_TO, CREATE, DELETE; folders only.
my $mask = 0x2 | 0x4 | 0x40 | 0x80 | 0x100 | 0x200 | 0x1000000;
my %names;
sub add {
  my ($relative, $told) = @_;
  return if keys %names >= $most;
  my $path = $relative eq '' ? $root : "$root/$relative";
  my $watch = syscall($numbers->[1], $fd, $path, $mask);
  return if $watch < 0;
  $names{$watch} = $relative;
  return unless $recursive;
  opendir(my $folder, $path) or return;
  for my $name (sort readdir $folder) {
    next if $name eq '.' || $name eq '..';
    my $inner = $relative eq '' ? $name : "$relative/$name";
    # Made before the watch was there.
    tell_of('create', $inner) if $told;
    add($inner, $told) if -d "$root/$inner" && !-l "$root/$inner";
  }
}
sub tell_of { my ($type, $name) = @_; print $type, ' ', unpack('H*', $name), "\n" }
add('', 0);
%names or fail("inotify: $!");
print "-\n";
open(my $events, '<&=', $fd) or fail('descriptor');
while (sysread($events, my $buffer, 65536)) {
  my $at = 0;
  while ($at + 16 <= length $buffer) {
    my ($watch, $flags, undef, $size) = unpack('lLLL', substr($buffer, $at, 16));
    my $name = unpack('Z*', substr($buffer, $at + 16, $size));
    $at += 16 + $size;
    my $folder = $names{$watch};
    next unless defined $folder;
    if ($flags & 0x8000) { delete $names{$watch}; exit 0 if $folder eq ''; next }
    next if $name eq '';
    my $path = $folder eq '' ? $name : "$folder/$name";
    if ($flags & (0x80 | 0x100)) {
      tell_of('create', $path);
      add($path, 1) if $recursive && $flags & 0x40000000;
    }
    elsif ($flags & 0x2) { tell_of('write', $path) }
    elsif ($flags & 0x200) { tell_of('remove', $path) }
    elsif ($flags & 0x40) { tell_of('rename', $path) }
    elsif ($flags & 0x4) { tell_of('chmod', $path) }
  }
}
`;

/** The command that watches. */
export function watchCommand(path: string, recursive: boolean, mostFolders: number): string[] {
  return ['perl', '-e', SCRIPT, path, recursive ? '1' : '', String(mostFolders)];
}
