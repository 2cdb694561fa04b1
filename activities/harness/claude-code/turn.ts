import type { ContentBlock } from '../../../contracts/definitions.ts';
import type { StdioPlace, StdioProcess } from '../host/stdio.ts';
import type { HarnessSpec, TurnHost, TurnOutcome, TurnSpec } from '../port.ts';
import { launchArgv, launchEnv, launchFiles } from './command.ts';
import { ClaudeEvents } from './events.ts';
import { crashOf, outcomeOf } from './faults.ts';
import { uuidOf } from './ids.ts';
import { parseLine, type Block, type OutputLine, type ResultLine } from './protocol.ts';
import { readTranscript, type RecordedTurn, type Transcript } from './transcript.ts';

/** Claude that was told to stop and goes on for longer is ended. */
const STOP_MS = 8_000;
/** After the end of its turn it writes the rest of its transcript. */
const LEAVE_MS = 15_000;
const END_MS = 60_000;
const INPUT_CHARS = 2_000;
const GO_ON = 'This turn was interrupted and goes on now: continue where you stopped.';

type Stopped = Extract<TurnOutcome, { kind: 'cancelled' | 'parked' | 'detached' }>['kind'];

export interface ClaudeParts {
  place: StdioPlace;
  program: string;
  spec: HarnessSpec;
  /** Claude's own id of the session. */
  sessionId: string;
}

/** The process ended before it said how the turn did. */
class ClaudeEnded extends Error {}

/** One attempt at a turn: one process, which is gone when the attempt is over. */
export class ClaudeTurn {
  readonly #parts: ClaudeParts;
  readonly #turn: TurnSpec;
  readonly #host: TurnHost;
  readonly #events = new ClaudeEvents();
  #process: StdioProcess | undefined;
  #stopped: Stopped | undefined;
  #killing: NodeJS.Timeout | undefined;

  constructor(parts: ClaudeParts, turn: TurnSpec, host: TurnHost) {
    this.#parts = parts;
    this.#turn = turn;
    this.#host = host;
  }

  async run(signal: AbortSignal): Promise<TurnOutcome> {
    const { parkSignal, detachSignal } = this.#host;
    const off = [
      onAbort(signal, () => this.#stop('cancelled')),
      onAbort(parkSignal, () => this.#stop('parked')),
      onAbort(detachSignal, () => this.#stop('detached')),
    ];
    try {
      const outcome = await this.#run();
      return this.#stopped === undefined ? outcome : { kind: this.#stopped };
    } catch (error) {
      if (!(error instanceof ClaudeEnded)) throw error;
      return this.#stopped === undefined ? crashOf(error.message) : { kind: this.#stopped };
    } finally {
      for (const each of off) each();
      clearTimeout(this.#killing);
      await this.#leave();
    }
  }

  async #run(): Promise<TurnOutcome> {
    const { place, spec, sessionId } = this.#parts;
    // Whatever an earlier worker left running would write into the same transcript.
    await place.end(spec.sessionId, AbortSignal.timeout(END_MS));
    const transcript = await readTranscript(place, spec, sessionId, AbortSignal.timeout(END_MS));
    const recorded = transcript?.turn(uuidOf(this.#turn.messageId));
    if (recorded !== undefined) await this.#repeat(recorded);
    if (this.#stopped !== undefined) return { kind: this.#stopped };
    if (recorded?.stopReason !== undefined && recorded.lost.length === 0) {
      return { kind: 'completed', stopReason: recorded.stopReason };
    }
    return this.#converse(transcript, recorded);
  }

  /** What was said in an earlier life, of which the record may lack the end. */
  async #repeat({ lines }: RecordedTurn): Promise<void> {
    for (const line of lines) {
      // A result that is an error may tell of the death of the process: the call is not over for that.
      if (line.type === 'user' && !tellsOfSuccess(line.message.content)) continue;
      for (const event of this.#events.of(line)) {
        if (event.type !== 'activity') await this.#host.emit(event);
      }
    }
  }

  async #converse(transcript: Transcript | undefined, recorded: RecordedTurn | undefined): Promise<TurnOutcome> {
    const { place, spec, sessionId, program } = this.#parts;
    for (const { path, content } of launchFiles(spec)) {
      await place.writeFile(path, Buffer.from(content), AbortSignal.timeout(END_MS));
    }
    const session = { id: sessionId, isNew: transcript === undefined };
    const argv = launchArgv({ program, spec, model: this.#turn.model, session });
    const launch = { marker: spec.sessionId, argv, env: launchEnv(spec), cwd: spec.cwd };
    this.#process = await place.start(launch, AbortSignal.timeout(END_MS));
    if (this.#stopped !== undefined) return { kind: this.#stopped };
    const lines = this.#process.lines()[Symbol.asyncIterator]();
    if (recorded?.deferred !== undefined) {
      // It asks about that call again by itself, and needs no words for it.
      const outcome = outcomeOf(await this.#ended(lines, undefined));
      if (outcome.kind !== 'completed' || recorded.lost.length === 0) return outcome;
    }
    const { uuid, content } = this.#words(transcript, recorded);
    await this.#say({ type: 'user', uuid, parent_tool_use_id: null, message: { role: 'user', content } });
    return outcomeOf(await this.#ended(lines, uuid));
  }

  /** The turn's message, once; then what became of things since, each time under an id of its own. */
  #words(
    transcript: Transcript | undefined,
    recorded: RecordedTurn | undefined,
  ): { uuid: string; content: ContentBlock[] } {
    const { messageId, content, continuation } = this.#turn;
    if (recorded === undefined) return { uuid: uuidOf(messageId), content };
    let number = 1;
    while (transcript?.has(uuidOf(`${messageId}/${number}`)) === true) number += 1;
    const text = [...lostInWords(recorded), continuation ?? GO_ON].join('\n\n');
    return { uuid: uuidOf(`${messageId}/${number}`), content: [{ type: 'text', text }] };
  }

  async #say(line: object): Promise<void> {
    try {
      await this.#process?.write(JSON.stringify(line));
    } catch {
      // It has ended: its output says so, too.
    }
  }

  /** Tells of all that happens up to the end of the message with that id, or of what was settled before any. */
  async #ended(lines: AsyncIterator<{ text: string }>, uuid: string | undefined): Promise<ResultLine> {
    for (;;) {
      const next = await lines.next();
      if (next.done === true) throw new ClaudeEnded(`claude ${(await this.#process?.ended)?.reason ?? 'ended'}`);
      const line = parseLine(next.value.text) as OutputLine | undefined;
      if (line === undefined) continue;
      // What a process that was told to stop says of its calls is no result of them.
      if (this.#stopped === undefined || line.type !== 'user') {
        for (const event of this.#events.of(line)) await this.#host.emit(event);
      }
      if (line.type !== 'result') continue;
      const ends = line.user_message_uuids ?? [];
      if (uuid === undefined || ends.length === 0 || ends.includes(uuid)) return line;
    }
  }

  #stop(why: Stopped): void {
    if (this.#stopped !== undefined) return;
    this.#stopped = why;
    const kill = (): void => {
      const { place, spec } = this.#parts;
      void place.end(spec.sessionId, AbortSignal.timeout(END_MS)).catch(() => undefined);
    };
    // A worker that goes down has no time; the next one goes on from the transcript.
    if (why === 'detached') return kill();
    const request = { subtype: 'interrupt' };
    void this.#say({ type: 'control_request', request_id: `stop-${this.#turn.messageId}`, request });
    this.#killing = setTimeout(kill, STOP_MS);
  }

  /** Its input ends, so it does; one that does not is ended. */
  async #leave(): Promise<void> {
    if (this.#process === undefined) return;
    const { place, spec } = this.#parts;
    this.#process.release();
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, LEAVE_MS);
    });
    await Promise.race([this.#process.ended, late]);
    clearTimeout(timer);
    await place.end(spec.sessionId, AbortSignal.timeout(END_MS));
  }
}

function lostInWords({ lost }: RecordedTurn): string[] {
  if (lost.length === 0) return [];
  const calls = lost.map(({ name, input }) => `- ${name} ${JSON.stringify(input).slice(0, INPUT_CHARS)}`);
  return [['You made these calls, too, and have not seen their results:', ...calls].join('\n')];
}

function tellsOfSuccess(content: string | Block[]): boolean {
  return typeof content !== 'string' && content.every((block) => block.type === 'tool_result' && !block.is_error);
}

function onAbort(signal: AbortSignal, act: () => void): () => void {
  if (signal.aborted) act();
  else signal.addEventListener('abort', act, { once: true });
  return () => signal.removeEventListener('abort', act);
}
