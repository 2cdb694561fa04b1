import { randomUUID } from 'node:crypto';
import type {
  HarnessCapabilities,
  HarnessDriver,
  HarnessEvent,
  HarnessHandle,
  HarnessSpec,
  PermissionAnswer,
  ResumeToken,
  ToolAnswer,
  TurnHost,
  TurnOutcome,
  TurnSpec,
} from '../../activities/harness/port.ts';

/** What a turn does, one after the other. */
export type FakeStep =
  | { say: string }
  /** One of our tools. */
  | { call: string; input: Record<string, unknown> }
  /** A tool of its own: asks first, then counts as run. */
  | { own: string; input: Record<string, unknown> }
  /** Waits until the test lets it go on. */
  | { wait: string }
  | { retry: number; httpStatus: number }
  /** The first tries at this step end so. */
  | { fail: TurnOutcome; times: number }
  | { end: TurnOutcome };

/** A message that the fake harness plays. */
export function fakeMessage(steps: FakeStep[], more: object = {}): object {
  return { type: 'user.message', content: JSON.stringify(steps), ...more };
}

interface Turn {
  messageId: string;
  steps: FakeStep[];
  /** Written down: survives the harness. */
  done: number;
}

interface Stored {
  turns: Turn[];
  spec: HarnessSpec;
}

interface Running {
  turn: Turn;
  host: TurnHost;
  hosts: ((host: TurnHost) => void)[];
  stop: AbortController;
  result: Promise<TurnOutcome>;
}

/**
 * A harness in the process of the test: what it has written down survives its death, and it survives its workers. It looks up
 * whether it has a message, as real ones do.
 */
export class FakeHarness implements HarnessDriver {
  readonly name = 'acp';
  readonly stored = new Map<string, Stored>();
  readonly running = new Map<string, Running>();
  /** Arguments of tools of its own that it ran. */
  readonly ran: Record<string, unknown>[] = [];
  readonly told: TurnSpec[] = [];
  readonly closed: { sessionId: string; forget: boolean }[] = [];
  readonly results: string[] = [];
  private readonly failed = new Map<string, number>();
  private readonly arrivals = new Map<string, PromiseWithResolvers>();
  /** What waits for the test, by name. */
  readonly gates = new Map<string, PromiseWithResolvers>();
  survivesWorkers = true;
  /** It dies before it has written the result of a call down: nobody sees that it has it. */
  hidesResults = false;
  /** How often a state was brought from elsewhere. */
  imported = 0;

  capabilities(): Promise<HarnessCapabilities> {
    return Promise.resolve({
      multiSession: true,
      placements: ['inline'],
      perSessionKey: true,
      perMessageModel: true,
      systemPrompt: 'replace',
      mcp: ['http'],
      idempotentMessage: 'looked_up',
      hotReattach: this.survivesWorkers,
      durablePermission: false,
      remoteTools: true,
      skills: false,
      usageBasis: 'none',
      notes: [],
    });
  }

  gate(name: string): PromiseWithResolvers {
    return heldIn(this.gates, name);
  }

  /** Resolves when a turn waits at this gate. */
  reached(name: string): Promise<void> {
    return heldIn(this.arrivals, name).promise;
  }

  private async waitAt(name: string, signal: AbortSignal): Promise<void> {
    heldIn(this.arrivals, name).resolve();
    await Promise.race([this.gate(name).promise, aborted(signal)]);
  }

  /** As SIGKILL: what ran is gone, what was written down stays. */
  kill(): void {
    for (const running of this.running.values()) running.stop.abort(new Error('killed'));
    this.running.clear();
  }

  open(spec: HarnessSpec, token: ResumeToken | null): Promise<HarnessHandle> {
    const known = token?.['id'];
    const id = typeof known === 'string' ? known : randomUUID();
    const stored = this.stored.get(id);
    if (stored === undefined) this.stored.set(id, { turns: [], spec });
    else stored.spec = spec;
    return Promise.resolve({
      harnessSessionId: id,
      resumeToken: { id },
      isAttachedToRunning: this.running.has(id),
    });
  }

  async runTurn(handle: HarnessHandle, spec: TurnSpec, host: TurnHost, signal: AbortSignal): Promise<TurnOutcome> {
    this.told.push(spec);
    const id = handle.harnessSessionId;
    const stored = this.stored.get(id);
    if (stored === undefined) throw new Error('no such session');
    let running = this.running.get(id);
    if (running === undefined) running = this.start(id, stored, spec, host);
    else {
      running.host = host;
      for (const tell of running.hosts.splice(0)) tell(host);
    }
    const left = (outcome: TurnOutcome, stop: boolean, on: AbortSignal): Promise<TurnOutcome> =>
      new Promise((resolve) => {
        const leave = (): void => {
          if (stop) {
            running.stop.abort(new Error('told to stop'));
            this.running.delete(id);
          }
          resolve(outcome);
        };
        if (on.aborted) leave();
        else on.addEventListener('abort', leave, { once: true });
      });
    return Promise.race([
      running.result.catch((error: unknown): TurnOutcome => {
        const message = error instanceof Error ? error.message : 'gone';
        return { kind: 'failed', fault: 'harness_crash', retryable: true, httpStatus: null, message };
      }),
      left({ kind: 'cancelled' }, true, signal),
      left({ kind: 'parked' }, true, host.parkSignal),
      left({ kind: 'detached' }, !this.survivesWorkers, host.detachSignal),
    ]);
  }

  exportState(handle: HarnessHandle): Promise<Uint8Array> {
    return Promise.resolve(Buffer.from(JSON.stringify(this.stored.get(handle.harnessSessionId)?.turns ?? [])));
  }

  importState(spec: HarnessSpec, token: ResumeToken, state: Uint8Array): Promise<void> {
    this.imported += 1;
    const turns = JSON.parse(Buffer.from(state).toString('utf8')) as Turn[];
    this.stored.set(String(token['id']), { turns, spec });
    return Promise.resolve();
  }

  close(spec: HarnessSpec, token: ResumeToken | null, forget: boolean): Promise<void> {
    const id = String(token?.['id']);
    this.closed.push({ sessionId: spec.sessionId, forget });
    this.running.get(id)?.stop.abort(new Error('closed'));
    this.running.delete(id);
    if (forget) this.stored.delete(id);
    return Promise.resolve();
  }

  private start(id: string, stored: Stored, spec: TurnSpec, host: TurnHost): Running {
    let turn = stored.turns.find(({ messageId }) => messageId === spec.messageId);
    if (turn === undefined) {
      const text = spec.content.flatMap((block) => (block.type === 'text' ? [block.text] : [])).join('');
      turn = { messageId: spec.messageId, steps: JSON.parse(text) as FakeStep[], done: 0 };
      stored.turns.push(turn);
    }
    const running: Running = {
      turn,
      host,
      hosts: [],
      stop: new AbortController(),
      result: Promise.resolve({ kind: 'cancelled' }),
    };
    this.running.set(id, running);
    running.result = this.play(running, spec).finally(() => {
      if (this.running.get(id) === running) this.running.delete(id);
    });
    // Whoever left it behind does not hear of its end.
    running.result.catch(() => undefined);
    return running;
  }

  private async play(running: Running, spec: TurnSpec): Promise<TurnOutcome> {
    const { turn, stop } = running;
    const { signal } = stop;
    while (turn.done < turn.steps.length) {
      const step = turn.steps[turn.done] as FakeStep;
      const id = `${spec.messageId}-${turn.done}`;
      const outcome = await this.step(running, step, id, signal);
      signal.throwIfAborted();
      if (outcome !== undefined) return outcome;
      turn.done += 1;
    }
    return { kind: 'completed', stopReason: 'end_turn' };
  }

  private async step(
    running: Running,
    step: FakeStep,
    id: string,
    signal: AbortSignal,
  ): Promise<TurnOutcome | undefined> {
    const emit = (event: HarnessEvent): Promise<void> => running.host.emit(event);
    if ('say' in step) {
      await emit({ type: 'text_delta', id, text: step.say });
      await emit({ type: 'message', id, text: step.say });
    } else if ('call' in step) {
      const callId = randomUUID();
      const request = { callId, tool: step.call, input: step.input };
      const answer = await this.patient(running, signal, (host) => host.callTool(request));
      this.results.push(textOf(answer));
      if (!this.hidesResults)
        await emit({ type: 'platform_result_seen', id: callId, tool: step.call, input: step.input });
    } else if ('own' in step) return this.own(running, step, signal);
    else if ('wait' in step) await this.waitAt(step.wait, signal);
    else if ('end' in step) return step.end;
    else if ('fail' in step) {
      const times = (this.failed.get(id) ?? 0) + 1;
      this.failed.set(id, times);
      return times <= step.times ? step.fail : undefined;
    } else {
      for (let attempt = 1; attempt <= step.retry; attempt += 1) {
        const { httpStatus } = step;
        await emit({ type: 'retry', id: `${id}-${attempt}`, attempt, message: 'the model is away', httpStatus });
      }
    }
    return undefined;
  }

  private async own(
    running: Running,
    step: Extract<FakeStep, { own: string }>,
    signal: AbortSignal,
  ): Promise<TurnOutcome | undefined> {
    const callId = randomUUID();
    const request = { callId, tool: step.own, input: step.input };
    await running.host.emit({ type: 'tool_call', id: callId, tool: step.own, input: step.input });
    const answer = await this.patient(running, signal, (host) => host.permission(request));
    if (answer.decision === 'park') return { kind: 'parked' };
    let text = answer.decision === 'deny' ? `denied: ${answer.message}` : 'ran';
    if (answer.decision === 'allow') {
      const gate = answer.input['gate'];
      this.ran.push(answer.input);
      if (typeof gate === 'string') await this.waitAt(gate, signal);
      text = `ran ${JSON.stringify(answer.input)}`;
    }
    this.results.push(text);
    const content = [{ type: 'text' as const, text }];
    await running.host.emit({ type: 'tool_result', id: callId, content, isError: answer.decision === 'deny' });
    return undefined;
  }

  /** Asks the host there is; when its worker is gone, the next one is asked again. */
  private async patient<T extends PermissionAnswer | ToolAnswer | { parked: true }>(
    running: Running,
    signal: AbortSignal,
    ask: (host: TurnHost) => Promise<T>,
  ): Promise<T> {
    for (;;) {
      const next = new Promise<TurnHost>((resolve) => running.hosts.push(resolve));
      try {
        return await Promise.race([ask(running.host), aborted(signal)]);
      } catch (error) {
        if (signal.aborted) throw error;
        await Promise.race([next, aborted(signal)]);
      }
    }
  }
}

function textOf(answer: ToolAnswer | { parked: true }): string {
  if ('parked' in answer) return 'parked';
  return answer.content.flatMap((block) => (block.type === 'text' ? [block.text] : [])).join('\n');
}

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    if (signal.aborted) reject(signal.reason as Error);
    else signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
  });
}

interface PromiseWithResolvers {
  promise: Promise<void>;
  resolve: () => void;
}

function heldIn(held: Map<string, PromiseWithResolvers>, name: string): PromiseWithResolvers {
  const known = held.get(name) ?? withResolvers();
  held.set(name, known);
  return known;
}

const nothing = (): void => undefined;

function withResolvers(): PromiseWithResolvers {
  const made = { resolve: nothing };
  const promise = new Promise<void>((done) => {
    made.resolve = done;
  });
  return Object.assign(made, { promise });
}
