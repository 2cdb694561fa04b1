import { LonghaulError } from '../../contracts/error-codes.ts';
import type { AnswerSink, Provider, ProviderRequest, RunningCall, Served } from '../providers/port.ts';

interface RememberOptions {
  /** Called once, with the id the provider gave the answer. */
  onId: (responseId: string, served: Served | undefined) => Promise<void>;
  /** The caller sees nothing of the answer before `onId` is through: nobody would find it again after a crash. */
  waits: boolean;
}

/** The id is the first field of the answer, or of the answer in the first event. */
const ID = /"id"\s*:\s*"([\w-]{1,256})"/;
const MAX_HEAD_BYTES = 4_096;

/** A provider that tells the id of each answer as soon as it is known. */
export function rememberIds(provider: Provider, options: RememberOptions): Provider {
  return {
    name: provider.name,
    start: (request, sink) => new RememberingCall(provider, request, sink, options),
    close: () => provider.close(),
  };
}

class RememberingCall implements AnswerSink, RunningCall {
  readonly #sink: AnswerSink;
  readonly #options: RememberOptions;
  readonly #running: RunningCall;
  #served: Served | undefined;
  /** The start of the answer, until the id is found or cannot come any more. */
  #head: string | undefined;
  /** What waits for the id to be remembered; each says whether the sink can take more. */
  #held: (() => boolean)[] | undefined;
  #isAborted = false;

  constructor(provider: Provider, request: ProviderRequest, sink: AnswerSink, options: RememberOptions) {
    this.#sink = sink;
    this.#options = options;
    this.#running = provider.start(request, this);
  }

  get attempts(): RunningCall['attempts'] {
    return this.#running.attempts;
  }

  resume(): void {
    if (this.#held === undefined) this.#running.resume();
  }

  abort(): void {
    this.#isAborted = true;
    this.#running.abort();
  }

  onHead(status: number, headers: Record<string, string>, served?: Served): void {
    this.#served = served;
    if (status < 300) this.#head = '';
    this.#sink.onHead(status, headers, served);
  }

  onData(chunk: Buffer): boolean {
    if (this.#head !== undefined) this.#look(chunk);
    if (this.#held === undefined) return this.#sink.onData(chunk);
    this.#held.push(() => this.#sink.onData(chunk));
    return false;
  }

  onEnd(): void {
    this.#inOrder(() => this.#sink.onEnd());
  }

  onFailure(error: Error, billed: boolean): void {
    this.#inOrder(() => this.#sink.onFailure(error, billed));
  }

  #look(chunk: Buffer): void {
    const head = `${this.#head ?? ''}${chunk.toString('latin1', 0, MAX_HEAD_BYTES)}`;
    const id = ID.exec(head)?.[1];
    this.#head = id === undefined && head.length < MAX_HEAD_BYTES ? head : undefined;
    if (id === undefined) return;
    const remembered = this.#options.onId(id, this.#served);
    if (!this.#options.waits) {
      // Logged where it failed; the answer is the caller's all the same.
      remembered.catch(() => undefined);
      return;
    }
    this.#held = [];
    remembered.then(
      () => this.#release(),
      () => this.#refuse(),
    );
  }

  #release(): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    if (this.#isAborted) return;
    let canTakeMore = true;
    for (const give of held) canTakeMore = give();
    if (canTakeMore) this.#running.resume();
  }

  #refuse(): void {
    this.#held = undefined;
    if (this.#isAborted) return;
    this.#running.abort();
    this.#sink.onFailure(new LonghaulError('database_unavailable', 'the response cannot be remembered'), true);
  }

  #inOrder(give: () => void): void {
    if (this.#held === undefined) give();
    else {
      this.#held.push(() => {
        give();
        return true;
      });
    }
  }
}
