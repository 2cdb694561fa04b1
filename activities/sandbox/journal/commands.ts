import type { ExecInfo, ExecPoll, ExecSignal, ExecSpec, SandboxRef } from '../port.ts';
import type { Journal } from './journal.ts';

/** The commands of the port, for providers whose sandboxes keep them in a journal inside. */
export abstract class JournalCommands {
  /** Reaches a sandbox's journal; `isStart` tells work that starts a command, which needs its environment. */
  protected abstract withJournal<T>(
    ref: SandboxRef,
    signal: AbortSignal,
    work: (journal: Journal) => Promise<T>,
    isStart?: boolean,
  ): Promise<T>;

  execStart(ref: SandboxRef, spec: ExecSpec, signal: AbortSignal): Promise<void> {
    return this.withJournal(ref, signal, (journal) => journal.start(spec, signal), true);
  }

  execPoll(
    ref: SandboxRef,
    execId: string,
    from: { out: number; err: number },
    waitMs: number,
    signal: AbortSignal,
  ): Promise<ExecPoll> {
    return this.withJournal(ref, signal, (journal) => journal.poll(execId, from, waitMs, signal));
  }

  execKill(ref: SandboxRef, execId: string, signal: AbortSignal): Promise<void> {
    return this.withJournal(ref, signal, (journal) => journal.kill(execId, signal));
  }

  execInput(
    ref: SandboxRef,
    execId: string,
    offset: number,
    data: Uint8Array | null,
    signal: AbortSignal,
  ): Promise<number> {
    return this.withJournal(ref, signal, (journal) => journal.input(execId, offset, data, signal));
  }

  execSignal(ref: SandboxRef, execId: string, name: ExecSignal, signal: AbortSignal): Promise<boolean> {
    return this.withJournal(ref, signal, (journal) => journal.signal(execId, name, signal));
  }

  execList(ref: SandboxRef, limit: number, signal: AbortSignal): Promise<ExecInfo[]> {
    return this.withJournal(ref, signal, (journal) => journal.list(limit, signal));
  }
}
