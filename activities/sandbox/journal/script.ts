/**
 * The journal's half inside the sandbox: POSIX sh, with the tools busybox and coreutils share (setsid, mkfifo, dd, head,
 * base64 or od, ls, find, grep or tr). Each operation is one script, given whole with each call: nothing is installed.
 *
 * A command has a folder `x-<id>`: `go` (a symlink, hence a claim with content: who supervises it, or that it never
 * starts), `out`, `err`, `why` (why it was killed), `exit` (by rename: how it ended). Answers begin with `LH1 `, since a
 * transport may put its own lines before them.
 */

/** Marks the processes of one command in their environment: descendants keep it, whatever session they make. */
export const MARK = 'LONGHAUL_EXEC';

/** With the journal's place: whoever sees the processes of several sandboxes must not take those of another for its own. */
export function markOf(root: string, execId: string): string {
  return `${execId}/${root}/`;
}

const COMMON = String.raw`
exec 2>/dev/null
umask 077
export LC_ALL=C PATH="$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
root=$1 id=$2 dir=$1/x-$2
boot=-
read -r boot < /proc/sys/kernel/random/boot_id
nap() { sleep "$1" || sleep 1; }
# In hundredths of a second, without starting a program.
now() { read -r up _ < /proc/uptime; now=$((${'$'}{up%.*} * 100 + 1${'$'}{up#*.} - 100)); }
look() {
  line=
  while IFS= read -r part || [ -n "$part" ]; do line="$line$part "; done < "/proc/$1/stat"
  set -- ${'$'}{line##*) }
  [ $# -ge 20 ] || return 1
  state=$1 ppid=$2 sid=$4 since=${'$'}{20}
}
alive() { [ "$3" = "$boot" ] && look "$1" && [ "$since" = "$2" ] && [ "$state" != Z ]; }
size() { size=0; [ -s "$1" ] || return 0; set -- $(ls -lnd "$1"); size=$5; }
# Processes this shell started, if they still run: the number of one that ended may be another's by now.
end_own() { for own; do if look "$own" && [ "$ppid" = $$ ]; then kill -KILL "$own"; fi; done; }
finish() { echo "end $1 $2" > "$dir/exit.$$"; mv -f "$dir/exit.$$" "$dir/exit"; }
# The first reason stays.
because() { (set -C; echo "$1" > "$dir/why"); }
# How the command of the folder $1 stands, in kind, code and why.
status() {
  kind=absent code=- why=-
  if read -r kind code why < "$1/exit"; then return; fi
  kind=absent code=- why=-
  read -r kind code a b < "$1/go" || return
  if [ "$kind" = end ]; then why=$a; return; fi
  if alive "$code" "$a" "$b"; then kind=running code=-; return; fi
  # It may have ended since the first look.
  if read -r kind code why < "$1/exit"; then return; fi
  kind=lost code=-
}
`;

/** Finding and killing all processes of a command: by their mark, by its session while it runs, and their descendants. */
const TREE = String.raw`
if printf 'a\0b=c\0' | grep -qF b=c; then
  marked() { grep -lsF "${MARK}=$id/$root/" /proc/[0-9]*/environ; }
else
  marked() {
    for entry in /proc/[0-9]*; do
      tr '\0' '\n' < "$entry/environ" | grep -qxF "${MARK}=$id/$root/" && echo "$entry/environ"
    done
  }
fi
tree() {
  found=' ' kin=' ' pairs=
  for entry in $(marked); do entry=${'$'}{entry#/proc/}; found="$found${'$'}{entry%/environ} "; done
  # A number that was given to another process since is nobody's session any more.
  leader=
  if [ ! -e "$dir/exit" ] && read -r line < "$dir/leader"; then
    leader=${'$'}{line%% *}
    set -- ${'$'}{line##*) }
    born=${'$'}{20}
    if look "$leader" && [ "$since" != "$born" ]; then leader=; fi
  fi
  for entry in /proc/[0-9]*; do
    pid=${'$'}{entry#/proc/}
    look "$pid" && [ "$state" != Z ] && [ "$state" != X ] && [ "$pid" != $$ ] && [ "$pid" != 1 ] || continue
    pairs="$pairs $pid:$ppid"
    case $found in *" $pid "*) kin="$kin$pid "; continue;; esac
    [ -z "$leader" ] || [ "$sid" != "$leader" ] || kin="$kin$pid "
  done
  grown=1
  while [ $grown = 1 ]; do
    grown=0
    for pair in $pairs; do
      case $kin in *" ${'$'}{pair%:*} "*) continue;; esac
      case $kin in *" ${'$'}{pair#*:} "*) kin="$kin${'$'}{pair%:*} " grown=1;; esac
    done
  done
  [ "$kin" != ' ' ]
}
# Stopped first, so that none can have a child while its siblings are killed.
slay() { rounds=0; while tree && [ $rounds -lt 200 ]; do rounds=$((rounds + 1)); kill -STOP $kin; kill -KILL $kin; nap 0.02; done; }
`;

/**
 * Arguments after root and id: nonce, time limit in hundredths, output limit, disk limit in KiB (0: none) and its folders
 * (separated by spaces), input mode, cwd, then `env`'s arguments and the command's.
 */
const SUPERVISOR = String.raw`${COMMON}${TREE}
nonce=$3 time_limit=$4 output_limit=$5 disk_limit=$6 disk_folders=$7 input=$8 cwd=$9
shift 9
cd /
look $$ || exit 1
echo "run $$ $since $boot" > "$dir/sup.$nonce"
mkfifo "$dir/o.$nonce" "$dir/e.$nonce" || exit 1
# Opened for both first: opening one end alone would wait for the other.
exec 4<> "$dir/o.$nonce" 5<> "$dir/e.$nonce"
exec 6< "$dir/o.$nonce" 7< "$dir/e.$nonce" 8> "$dir/o.$nonce" 9> "$dir/e.$nonce" 4>&- 5>&-
rm -f "$dir/o.$nonce" "$dir/e.$nonce"
if ! ln -s "sup.$nonce" "$dir/go"; then rm -f "$dir/sup.$nonce" "$dir/in.$nonce"; exit 0; fi
# The file size limit is of these two alone: what a command writes into its own files is no output.
pump() { ulimit -f $((output_limit / 512 + 2)); exec cat 8>&- 9>&-; }
: > "$dir/out"
: > "$dir/err"
pump <&6 >> "$dir/out" 6>&- 7>&- &
out_pump=$!
pump <&7 >> "$dir/err" 6>&- 7>&- &
err_pump=$!
exec 6>&- 7>&-
written() { size "$dir/out"; written=$size; size "$dir/err"; written=$((written + size)); }
ooms() { ooms=0; for file in /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control; do while read -r key value; do [ "$key" != oom_kill ] || ooms=$value; done < "$file"; done; }
watch() {
  while nap 0.2; do
    [ ! -e "$dir/exit" ] || return
    now
    if [ "$now" -ge "$end" ]; then because timeout; slay; return; fi
    written
    if [ "$written" -gt "$output_limit" ]; then because output_limit; slay; return; fi
    [ ! -e "$dir/why" ] || slay
  done
}
watch_disk() {
  rest=2
  while sleep "$rest"; do
    now
    begun=$now used=0
    for kib in $(du -skx $disk_folders | cut -f 1); do used=$((used + kib)); done
    if [ "$used" -gt "$disk_limit" ]; then because disk_limit; slay; return; fi
    # Counting takes a tenth of the time.
    now
    rest=$((2 + (now - begun) / 10))
  done
}
# Gives on what is appended to the file of the input, until it is closed.
feed() {
  exec 3< "$dir/in"
  while :; do
    last=; [ ! -e "$dir/in.eof" ] || last=1
    cat <&3 || return
    [ -z "$last" ] || return
    nap 0.1
  done
}
now
end=$((now + time_limit))
ooms
ooms_before=$ooms
child() {
  # Killed between the claim and here.
  [ ! -e "$dir/why" ] || return 137
  setsid sh -c 'read -r line < /proc/$$/stat; echo "$line" > "$1/leader.$$" && mv -f "$1/leader.$$" "$1/leader"; exec 2>&9; echo 1000 2>/dev/null > /proc/self/oom_score_adj; umask 022; cd "$2" || exit 126; shift 2; exec env -i "$@" 8>&- 9>&-' exec "$dir" "$cwd" "$@" >&8
}
watch 8>&- 9>&- &
watcher=$!
disk_watcher=
if [ "$disk_limit" -gt 0 ]; then watch_disk 8>&- 9>&- & disk_watcher=$!; fi
feeder=
case $input in
  none) child "$@" < /dev/null;;
  whole) child "$@" < "$dir/in.$nonce";;
  open)
    mkfifo "$dir/i.$nonce"
    exec 3<> "$dir/i.$nonce"
    exec 4< "$dir/i.$nonce" 5> "$dir/i.$nonce" 3>&-
    rm -f "$dir/i.$nonce"
    feed >&5 4>&- 5>&- 8>&- 9>&- &
    feeder=$!
    exec 5>&-
    child "$@" <&4 4>&-
    ;;
esac
code=$?
exec 8>&- 9>&-
end_own $watcher $disk_watcher $feeder
[ ! -e "$dir/why" ] || slay
# A pump that sleeps has nothing left to read; what the command left behind may keep it open.
idle() { look "$1" || return 0; case $state in Z|X) return 0;; S) held=1; return 0;; esac; return 1; }
seen=0
while [ $seen -lt 2 ]; do
  held=
  if idle $out_pump && idle $err_pump; then seen=$((seen + 1)); [ -n "$held" ] || break; else seen=0; fi
  nap 0.01
done
written
[ "$written" -le "$output_limit" ] || because output_limit
ooms
[ $code != 137 ] || [ "$ooms" = "$ooms_before" ] || because memory_limit
why=-
[ $code -lt 128 ] && [ "$written" -le "$output_limit" ] || read -r why < "$dir/why"
finish $code "$why"
if [ "$input" = open ]; then size "$dir/in"; echo "$size" > "$dir/in.size.$$"; mv -f "$dir/in.size.$$" "$dir/in.size"; fi
rm -f "$dir/in.$nonce" "$dir/in" "$dir/in.eof"
# What it left behind may go on writing.
while [ -n "$held" ] && nap 1; do
  held=
  idle $out_pump && idle $err_pump
  written
  if [ "$written" -gt "$output_limit" ]; then slay; exit 0; fi
done
`;

/** Standard input (or the staged file) is the command's whole input. Arguments: supervisor, then as the supervisor. */
const START = String.raw`supervisor=$1 input_size=$2
shift 2
${COMMON}
nonce=$3 input=$8
stage=$root/stage.$nonce
if [ ! -L "$dir/go" ]; then
  command -v setsid > /dev/null || { echo 'LH1 error setsid is missing'; exit; }
  mkdir -p "$dir" || { echo 'LH1 error the journal cannot be written'; exit; }
  if [ "$input" = whole ]; then
    [ -e "$stage" ] || cat > "$stage"
    # Cut off when whoever sends it died: then the command must not run.
    size "$stage"
    [ "$size" = "$input_size" ] || { rm -f "$stage"; echo 'LH1 error its input did not arrive'; exit; }
    mv -f "$stage" "$dir/in.$nonce"
  elif [ "$input" = open ]; then
    : >> "$dir/in"
  fi
  # Twice: the second is a group leader, hence goes into the background by itself. An ampersand would make the command
  # deaf to SIGINT.
  setsid setsid sh -c "$supervisor" supervisor "$@" < /dev/null > /dev/null 2>&1
  tries=0
  while [ ! -L "$dir/go" ] && [ $tries -lt 1000 ]; do tries=$((tries + 1)); nap 0.005; done
  [ -L "$dir/go" ] || { echo 'LH1 error the command was not started in time'; exit; }
fi
rm -f "$stage"
echo 'LH1 started'
`;

/** Arguments after root and id: offsets of out and err, wait in hundredths, most bytes of each, framing. */
const POLL = String.raw`${COMMON}${TREE}
from_out=$3 from_err=$4 most=$6 framing=$7
now
end=$((now + $5))
step=0
while :; do
  status "$dir"
  size "$dir/out"
  out=$((size - from_out))
  size "$dir/err"
  err=$((size - from_err))
  now
  if [ $kind != running ] || [ $out -gt 0 ] || [ $err -gt 0 ] || [ "$now" -ge $end ]; then break; fi
  step=$((step + 1))
  if [ $step -lt 20 ]; then nap 0.01; else nap 0.05; fi
done
if [ $kind = lost ]; then
  # Nobody else looks after what it may have left.
  read -r _ pid _ was < "$dir/go"
  [ "$was" != "$boot" ] || slay
  finish - lost
fi
[ $out -gt 0 ] || out=0
[ $err -gt 0 ] || err=0
[ $out -le "$most" ] || out=$most
[ $err -le "$most" ] || err=$most
piece() { { dd bs=1 skip="$2" count=0; head -c "$3"; } < "$1"; }
if [ "$framing" = raw ]; then
  echo "LH1 $kind $code $why $out $err raw"
  [ $out = 0 ] || piece "$dir/out" "$from_out" $out
  [ $err = 0 ] || piece "$dir/err" "$from_err" $err
else
  if command -v base64 > /dev/null; then coding=base64; encode() { base64; }; else coding=hex; encode() { od -An -v -tx1; }; fi
  echo "LH1 $kind $code $why $out $err $coding"
  [ $out = 0 ] || piece "$dir/out" "$from_out" $out | encode
  echo .
  [ $err = 0 ] || piece "$dir/err" "$from_err" $err | encode
  echo .
fi
`;

/** Argument after root and id: nonce. */
const KILL = String.raw`${COMMON}${TREE}
if [ ! -L "$dir/go" ]; then
  mkdir -p "$dir"
  echo 'end 137 signal' > "$dir/never.$3"
  ln -s "never.$3" "$dir/go" || rm -f "$dir/never.$3"
fi
while :; do
  status "$dir"
  case $kind in
    running) because signal; slay; nap 0.01;;
    lost) read -r _ pid _ was < "$dir/go"; [ "$was" != "$boot" ] || slay; finish - lost;;
    *) break;;
  esac
done
echo 'LH1 ended'
`;

/** Argument after root and id: the signal's name without SIG. */
const SIGNAL = String.raw`${COMMON}${TREE}
status "$dir"
sent=no
if [ $kind = running ] && tree; then
  # One by one: some may have ended since they were found.
  for pid in $kin; do if kill -s "$3" "$pid"; then sent=yes; fi; done
fi
echo "LH1 $sent"
`;

/** Arguments after root and id: offset, length or `end`, nonce; standard input or the staged file is the data. */
const INPUT = String.raw`${COMMON}
offset=$3 length=$4 stage=$root/stage.$5
answer() { rm -f "$stage"; echo "LH1 $1 $2"; exit; }
status "$dir"
[ $kind != absent ] || answer absent 0
ended=
if read -r size < "$dir/in.size"; then ended=1; elif [ -e "$dir/in" ]; then size "$dir/in"; else answer closed 0; fi
if [ "$offset" -gt "$size" ]; then answer gap "$size"; fi
if [ "$length" = end ]; then [ -n "$ended" ] || : > "$dir/in.eof"; answer taken "$size"; fi
if [ $((offset + length)) -le "$size" ]; then answer taken "$size"; fi
[ -z "$ended" ] && [ $kind = running ] && [ ! -e "$dir/in.eof" ] || answer closed "$size"
[ -e "$stage" ] || cat > "$stage"
# The same bytes at the same place: writing them twice, or by two at once, changes nothing.
{ dd bs=1 seek="$offset" count=0 conv=notrunc; cat "$stage"; } 1<> "$dir/in"
size "$dir/in"
answer taken "$size"
`;

/** Arguments: root, any id, how many. Newest first. */
const LIST = String.raw`${COMMON}
echo "LH1 list"
cd "$root" || exit 0
# Busybox knows only the seconds of a link's time: within one, the supervisors' starts tell.
for go in $(ls -td x-*/go | head -n $(($3 + 64))); do
  folder=${'$'}{go%/go}
  read -r _ _ begun was < "$go"
  [ "$was" = "$boot" ] || begun=0
  status "$folder"
  echo "LH1 ${'$'}{folder#x-} $kind $code $why $begun"
done
`;

/** Arguments: root, any id, most commands, most bytes. A removed id could start again, so folders stay longest. */
const PRUNE = String.raw`${COMMON}
cd "$root" || exit 0
kept=0 count=0
for go in $(ls -td x-*/go); do
  folder=${'$'}{go%/go}
  count=$((count + 1))
  status "$folder"
  [ $kind = end ] || continue
  if [ $count -gt "$3" ]; then rm -rf "$folder"; continue; fi
  [ -s "$folder/out" ] || [ -s "$folder/err" ] || continue
  size "$folder/out"
  kept=$((kept + size))
  size "$folder/err"
  kept=$((kept + size))
  # Somebody may be reading what is young.
  [ $kept -le "$4" ] || [ -z "$(find "$folder/exit" -mmin +10)" ] || rm -f "$folder/out" "$folder/err"
done
find . -name 'stage.*' -mmin +60 -exec rm -f {} +
echo 'LH1 pruned'
`;

export const SCRIPTS = {
  supervisor: SUPERVISOR,
  start: START,
  poll: POLL,
  kill: KILL,
  signal: SIGNAL,
  input: INPUT,
  list: LIST,
  prune: PRUNE,
} as const;
