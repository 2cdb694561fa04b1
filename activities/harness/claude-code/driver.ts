import { realpath } from 'node:fs/promises';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import type { StdioPlace } from '../host/stdio.ts';
import { requireHarness } from '../installs.ts';
import type {
  HarnessCapabilities,
  HarnessDriver,
  HarnessHandle,
  HarnessSpec,
  ResumeToken,
  TurnHost,
  TurnOutcome,
  TurnSpec,
} from '../port.ts';
import { CLAUDE_CODE_CAPABILITIES } from './capabilities.ts';
import { uuidOf } from './ids.ts';
import { packTranscript, unpackTranscript } from './transcript.ts';
import { ClaudeTurn } from './turn.ts';

export interface ClaudeCodeDeps {
  /** Where its processes run. */
  place: StdioPlace;
  installDir: string;
}

class ClaudeHandle implements HarnessHandle {
  readonly isAttachedToRunning = false;
  readonly spec: HarnessSpec;
  readonly harnessSessionId: string;

  constructor(spec: HarnessSpec, sessionId: string) {
    this.spec = spec;
    this.harnessSessionId = sessionId;
  }

  get resumeToken(): ResumeToken {
    return { sessionId: this.harnessSessionId };
  }
}

/**
 * Claude Code by its command line: a process for each attempt at a turn, which asks about every call over the hook. A call that
 * waits for a person is deferred: the process ends, the session's transcript keeps the call, and the next process settles it.
 */
export class ClaudeCodeDriver implements HarnessDriver {
  readonly name = 'claude-code';
  readonly #deps: ClaudeCodeDeps;

  constructor(deps: ClaudeCodeDeps) {
    this.#deps = deps;
  }

  capabilities(): Promise<HarnessCapabilities> {
    return Promise.resolve(CLAUDE_CODE_CAPABILITIES);
  }

  async open(spec: HarnessSpec, token: ResumeToken | null, signal: AbortSignal): Promise<HarnessHandle> {
    if (spec.placement !== 'inline' || spec.hands !== 'platform') {
      throw new LonghaulError('harness_invalid', 'claude-code runs inline, with the hands of the platform');
    }
    requireHarness('claude-code', this.#deps.installDir);
    // A process that outlived its worker must not ask for anything any more.
    await this.#deps.place.end(spec.sessionId, signal);
    return new ClaudeHandle(spec, sessionIdOf(spec, token));
  }

  async runTurn(handle: HarnessHandle, turn: TurnSpec, host: TurnHost, signal: AbortSignal): Promise<TurnOutcome> {
    const { place, installDir } = this.#deps;
    const { spec, harnessSessionId: sessionId } = own(handle);
    const { path: program } = requireHarness('claude-code', installDir);
    const outcome = await new ClaudeTurn({ place, program, spec, sessionId }, turn, host).run(signal);
    return outcome.kind === 'failed' ? { ...outcome, message: scrubbed(outcome.message, spec) } : outcome;
  }

  exportState(handle: HarnessHandle, signal: AbortSignal): Promise<Uint8Array | null> {
    const { spec, harnessSessionId } = own(handle);
    return packTranscript(this.#deps.place, spec, harnessSessionId, signal);
  }

  async importState(spec: HarnessSpec, token: ResumeToken, state: Uint8Array, signal: AbortSignal): Promise<void> {
    const at = { spec, sessionId: sessionIdOf(spec, token), cwd: await realpath(spec.cwd) };
    await unpackTranscript(this.#deps.place, at, state, signal);
  }

  async close(spec: HarnessSpec, _token: ResumeToken | null, forget: boolean, signal: AbortSignal): Promise<void> {
    const { place } = this.#deps;
    await place.end(spec.sessionId, signal);
    if (forget) await place.remove(spec.stateDir, signal);
  }
}

function own(handle: HarnessHandle): ClaudeHandle {
  if (handle instanceof ClaudeHandle) return handle;
  throw new LonghaulError('internal', 'a handle of another driver');
}

/** Derived, so that a session whose first process died before it was stored is the same one. */
function sessionIdOf(spec: HarnessSpec, token: ResumeToken | null): string {
  const known = token?.['sessionId'];
  return typeof known === 'string' ? known : uuidOf(`session/${spec.sessionId}`);
}

/** Errors quote requests and the settings of the program. */
function scrubbed(message: string, spec: HarnessSpec): string {
  const secrets = [
    spec.model.key,
    ...[...spec.mcpServers, spec.hook].flatMap((to) => Object.values(to?.headers ?? {})),
  ];
  return secrets.filter((secret) => secret !== '').reduce((text, secret) => text.replaceAll(secret, '***'), message);
}
