import { LonghaulError } from '../../../contracts/error-codes.ts';
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
import type { HarnessHost } from '../host/servers.ts';
import { COPILOT_CAPABILITIES } from './capabilities.ts';
import { crashOf } from './faults.ts';
import { connectShared, runtimeHome } from './server.ts';
import { isKept, readState, writeState } from './state.ts';
import { CopilotTurnRun, type Token } from './turn.ts';

interface CopilotDriverParts {
  host: HarnessHost;
  installDir: string;
}

interface CopilotHandle extends HarnessHandle {
  spec: HarnessSpec;
}

/** GitHub Copilot through its SDK: one runtime for many sessions, a connection for each turn. */
export class CopilotDriver implements HarnessDriver {
  readonly name = 'github-copilot';
  readonly #parts: CopilotDriverParts;

  constructor(parts: CopilotDriverParts) {
    this.#parts = parts;
  }

  capabilities(): Promise<HarnessCapabilities> {
    return Promise.resolve(COPILOT_CAPABILITIES);
  }

  /** Session ids are ours, so there is nothing to make before the first turn; only the runtime has to be there. */
  async open(spec: HarnessSpec, token: ResumeToken | null, signal: AbortSignal): Promise<HarnessHandle> {
    if (spec.placement !== 'inline' || spec.hands !== 'platform') {
      throw new LonghaulError('harness_invalid', 'Copilot runs inline, with the hands of the platform');
    }
    const { host, installDir } = this.#parts;
    const known = readToken(token) ?? { sessionId: spec.sessionId };
    if (known.sent !== undefined && known.sent.before > 0 && !isKept(runtimeHome(host), known.sessionId)) {
      throw new LonghaulError('harness_invalid', 'Copilot has no history of this session here');
    }
    const link = await connectShared(host, installDir, signal);
    await link.close();
    const handle: CopilotHandle = {
      spec,
      harnessSessionId: known.sessionId,
      resumeToken: known,
      isAttachedToRunning: false,
    };
    return handle;
  }

  async runTurn(handle: HarnessHandle, turn: TurnSpec, host: TurnHost, signal: AbortSignal): Promise<TurnOutcome> {
    const { spec } = handle as CopilotHandle;
    const token = handle.resumeToken as Token;
    try {
      const link = await connectShared(this.#parts.host, this.#parts.installDir, signal);
      try {
        const home = runtimeHome(this.#parts.host);
        return await new CopilotTurnRun({ link, home, spec, token, turn, host }).run(signal);
      } finally {
        await link.close();
      }
    } catch (error) {
      return crashOf(error instanceof Error ? error.message : String(error));
    }
  }

  async exportState(handle: HarnessHandle): Promise<Uint8Array | null> {
    return await readState(runtimeHome(this.#parts.host), handle.harnessSessionId);
  }

  async importState(_spec: HarnessSpec, token: ResumeToken, state: Uint8Array): Promise<void> {
    const known = readToken(token);
    if (known === undefined) throw new LonghaulError('harness_invalid', 'names no session', { field: 'token' });
    await writeState(runtimeHome(this.#parts.host), known.sessionId, state);
  }

  async close(spec: HarnessSpec, token: ResumeToken | null, forget: boolean, signal: AbortSignal): Promise<void> {
    const { host, installDir } = this.#parts;
    const sessionId = readToken(token)?.sessionId ?? spec.sessionId;
    // A turn ends with the connection that began it: there is nothing else to end.
    if (!forget || !isKept(runtimeHome(host), sessionId)) return;
    const link = await connectShared(host, installDir, signal);
    try {
      await link.client.deleteSession(sessionId);
    } finally {
      await link.close();
    }
  }
}

function readToken(token: ResumeToken | null): Token | undefined {
  return typeof token?.['sessionId'] === 'string' ? (token as Token) : undefined;
}
