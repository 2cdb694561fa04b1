import type {
  FaultClass,
  HarnessEvent,
  PermissionAnswer,
  PermissionRequest,
  ResumeToken,
  ToolAnswer,
  TurnHost,
  TurnOutcome,
} from '../../activities/harness/port.ts';

/** What the watchdog of the product allows; here set by the case. */
export interface TurnLimits {
  idleMs: number;
  /** More attempts of the harness's own than these end the turn. */
  retries: number;
}

/** How a turn ended for the product: the driver's word, or the watchdog's when that stopped it. */
export type Ending = TurnOutcome & { stoppedBy?: 'idle' | 'retries' };

interface HostParts {
  permission(request: PermissionRequest): Promise<PermissionAnswer>;
  callTool(request: PermissionRequest): Promise<ToolAnswer | { parked: true }>;
  checkpoint(token: ResumeToken): void;
}

/** A `TurnHost` that keeps what it is told. An id that came before is taken once, as the real sink does. */
export class RecordingHost implements TurnHost {
  readonly events: HarnessEvent[] = [];
  readonly asked: PermissionRequest[] = [];
  readonly #parts: HostParts;
  readonly #seen = new Set<string>();
  readonly #park = new AbortController();
  readonly #detach = new AbortController();
  readonly #listeners = new Set<() => void>();
  /** Calls of ours that wait or run: no silence. */
  #open = 0;

  constructor(parts: HostParts) {
    this.#parts = parts;
  }

  get parkSignal(): AbortSignal {
    return this.#park.signal;
  }

  get detachSignal(): AbortSignal {
    return this.#detach.signal;
  }

  get isWaiting(): boolean {
    return this.#open > 0;
  }

  park(): void {
    this.#park.abort();
  }

  detach(): void {
    this.#detach.abort();
  }

  emit(event: HarnessEvent): Promise<void> {
    const isPreview = event.type === 'text_delta' || event.type === 'thinking_delta' || event.type === 'activity';
    const key = `${event.type}/${event.id}`;
    if (isPreview || !this.#seen.has(key)) this.events.push(event);
    if (!isPreview) this.#seen.add(key);
    for (const listener of this.#listeners) listener();
    return Promise.resolve();
  }

  async permission(request: PermissionRequest): Promise<PermissionAnswer> {
    this.asked.push(request);
    return this.#whileOpen(() => this.#parts.permission(request));
  }

  async callTool(request: PermissionRequest): Promise<ToolAnswer | { parked: true }> {
    return this.#whileOpen(() => this.#parts.callTool(request));
  }

  checkpoint(token: ResumeToken): Promise<void> {
    // What cannot be stored as JSON is found here, not after the crash.
    this.#parts.checkpoint(JSON.parse(JSON.stringify(token)) as ResumeToken);
    return Promise.resolve();
  }

  of<T extends HarnessEvent['type']>(type: T): Extract<HarnessEvent, { type: T }>[] {
    return this.events.filter((event): event is Extract<HarnessEvent, { type: T }> => event.type === type);
  }

  /** All text of the model, from the record. */
  said(): string {
    return this.of('message')
      .map((event) => event.text)
      .join('\n');
  }

  async whileWaiting<T>(wait: () => Promise<T>): Promise<T> {
    return this.#whileOpen(wait);
  }

  /** Resolves when an event makes it true, or at once. */
  async until(isTrue: (host: RecordingHost) => boolean): Promise<void> {
    if (isTrue(this)) return;
    await new Promise<void>((resolve) => {
      const look = (): void => {
        if (!isTrue(this)) return;
        this.#listeners.delete(look);
        resolve();
      };
      this.#listeners.add(look);
    });
  }

  onEvent(listener: () => void): void {
    this.#listeners.add(listener);
  }

  async #whileOpen<T>(wait: () => Promise<T>): Promise<T> {
    this.#open += 1;
    try {
      return await wait();
    } finally {
      this.#open -= 1;
      for (const listener of this.#listeners) listener();
    }
  }
}

/** Runs a turn under the watchdog's rules: no event for too long or too many retries cancel it. */
export async function watched(
  host: RecordingHost,
  limits: TurnLimits,
  cancel: AbortController,
  run: (signal: AbortSignal) => Promise<TurnOutcome>,
): Promise<Ending> {
  let stoppedBy: Ending['stoppedBy'];
  const end = (why: NonNullable<Ending['stoppedBy']>): void => {
    stoppedBy ??= why;
    cancel.abort();
  };
  let timer: NodeJS.Timeout | undefined;
  const wind = (): void => {
    clearTimeout(timer);
    timer = setTimeout(() => (host.isWaiting ? wind() : end('idle')), limits.idleMs);
    if (host.of('retry').length > limits.retries) end('retries');
  };
  host.onEvent(wind);
  wind();
  try {
    const outcome = await run(cancel.signal);
    return stoppedBy === undefined ? outcome : { ...endingOf(host, stoppedBy), stoppedBy };
  } finally {
    clearTimeout(timer);
  }
}

function endingOf(host: RecordingHost, why: 'idle' | 'retries'): TurnOutcome {
  const last = host.of('retry').at(-1);
  const fault: FaultClass = why === 'idle' || last === undefined ? 'stalled' : classOf(last.httpStatus);
  return {
    kind: 'failed',
    fault,
    retryable: true,
    httpStatus: last?.httpStatus ?? null,
    message: last?.message ?? why,
  };
}

function classOf(httpStatus: number | null): FaultClass {
  return httpStatus === 429 ? 'rate_limit' : 'overloaded';
}
