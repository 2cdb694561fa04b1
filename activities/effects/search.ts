import { LonghaulError } from '../../contracts/error-codes.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { ToolInput } from '../../contracts/tool-inputs.ts';
import { runCommand } from './bash.ts';
import { absolute } from './files.ts';
import type { ToolContext, ToolOutcome } from './outcome.ts';
import { done } from './outcome.ts';
import { shorten } from './shorten.ts';

const SKIPPED = ['node_modules', '.git', '.longhaul'];

/** The glob tool: runs bash's own globstar inside the sandbox. */
export async function glob(context: ToolContext, input: ToolInput<'glob'>): Promise<ToolOutcome> {
  const script = `shopt -s globstar nullglob dotglob; cd -- "$1" || exit 1; IFS=; for f in $2; do [ -f "$f" ] || continue; case "/$f/" in ${SKIPPED.map((name) => `*/${name}/*`).join('|')}) continue;; esac; printf '%s\\t%s\\n' "$(stat -c %Y -- "$f")" "$f"; done | sort -rn | head -n ${LIMITS.globResults} | cut -f2-`;
  return search(context, ['bash', '-c', script, 'glob', absolute(input.path ?? '/workspace'), input.pattern]);
}

/** The grep tool: extended regular expressions over text files. */
export async function grep(context: ToolContext, input: ToolInput<'grep'>): Promise<ToolOutcome> {
  const excludes = SKIPPED.map((name) => `--exclude-dir=${name}`).join(' ');
  const script = `grep -rnIE ${excludes} -e "$1" -- "$2" | head -n ${LIMITS.grepResults}; exit "\${PIPESTATUS[0]}"`;
  return search(context, ['bash', '-c', script, 'grep', input.pattern, absolute(input.path ?? '/workspace')]);
}

async function search(context: ToolContext, argv: string[]): Promise<ToolOutcome> {
  // Searching changes nothing, so an attempt after a crash runs under an id of its own instead of re-attaching.
  const execId = `${context.execId}.${Date.now().toString(36)}`;
  const result = await runCommand({ ...context, execId }, argv);
  const { status } = result;
  if (status.state === 'lost' || status.state === 'absent') {
    throw new LonghaulError('sandbox_lost', 'the sandbox died while the search ran');
  }
  const found = await shorten(context, result.stdout.bytes());
  if (status.state !== 'exited') return done(`the search was cut short (${status.state})\n${found}`, true);
  // 141: the producer was stopped because `head` had enough.
  if (status.exitCode > 1 && status.exitCode !== 141) {
    return done(
      new TextDecoder().decode(result.stderr.bytes()).slice(0, 2_000) || `exit code ${status.exitCode}`,
      true,
    );
  }
  return done(found === '' ? 'no matches' : found);
}
