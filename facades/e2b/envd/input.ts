import type { SandboxProvider, SandboxRef } from '../../../activities/sandbox/port.ts';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import { RpcError } from './connect.ts';

const SEND_MS = 60_000;

/**
 * Input comes without offsets on this wire, and the port wants them. Each command's pieces go one after the other; where a
 * server that was restarted does not know how far they are, it asks the journal.
 */
export class InputLines {
  private readonly provider: SandboxProvider;
  private readonly lines = new Map<string, Promise<unknown>>();

  constructor(provider: SandboxProvider) {
    this.provider = provider;
  }

  /** `null` ends the input. */
  send(ref: SandboxRef, execId: string, data: Uint8Array | null): Promise<void> {
    const key = `${ref.id}/${execId}`;
    const before = this.lines.get(key) ?? Promise.resolve();
    const sent = before.then(() => this.append(ref, execId, data));
    const settled = sent.catch(() => undefined);
    this.lines.set(key, settled);
    void this.forget(key, settled);
    return sent;
  }

  private async forget(key: string, settled: Promise<unknown>): Promise<void> {
    await settled;
    if (this.lines.get(key) === settled) this.lines.delete(key);
  }

  private async append(ref: SandboxRef, execId: string, data: Uint8Array | null): Promise<void> {
    const signal = AbortSignal.timeout(SEND_MS);
    try {
      const offset = await this.provider.execInput(ref, execId, 0, new Uint8Array(0), signal);
      await this.provider.execInput(ref, execId, offset, data, signal);
    } catch (error) {
      if (!(error instanceof LonghaulError) || error.code !== 'sandbox_invalid') throw error;
      throw new RpcError('failed_precondition', `the process takes no input: ${error.message}`, { cause: error });
    }
  }
}
