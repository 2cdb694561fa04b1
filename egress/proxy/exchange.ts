import { PassThrough, type Readable, type Transform, type Writable } from 'node:stream';
import type { Allowed, EgressTarget, HeaderList, Outcome, RequestHead } from '../decision.ts';
import type { Flow, SandboxEgress } from '../sandbox.ts';
import { openOutbound, type Answer, type Framing, type Outbound } from '../upstream/outbound.ts';
import { EgressFailure, toFailure, toldAs } from './failure.ts';
import { valueOf, without } from './headers.ts';
import type { Inbound } from './inbound.ts';
import { finished, pump } from './pump.ts';
import { declaredBytes, printable, readRequest, type Tunnel } from './request-head.ts';

/** A body that is changed is gathered up to here, so that its size can be told. */
const GATHERED_BYTES = 256 * 1024;
/** A refused request's body is read and dropped up to here, so that the sandbox sees the answer. */
const DROPPED_BYTES = 1024 * 1024;

/** One request of a sandbox from its head to the end of its answer. */
export class Exchange implements Flow {
  readonly isOpaque = false;
  activeAtMs = performance.now();
  readonly #inbound: Inbound;
  readonly #sandbox: SandboxEgress;
  readonly #startedMs = performance.now();
  readonly #gone = new AbortController();
  #outbound: Outbound | undefined;
  #allowed: Allowed | undefined;
  #status: number | null = null;
  #bytesOut = 0;
  #bytesIn = 0;
  #cutCode: string | undefined;

  constructor(inbound: Inbound, sandbox: SandboxEgress) {
    this.#inbound = inbound;
    this.#sandbox = sandbox;
  }

  /** Never throws: what goes wrong is told to the sandbox and written down. */
  async run(tunnel: Tunnel | null): Promise<void> {
    this.#inbound.onGone(() => this.cut('sandbox_hung_up'));
    let head: RequestHead | undefined;
    try {
      this.#sandbox.begin(this);
      head = readRequest(this.#inbound, tunnel, false);
      await this.#decide(head);
      this.#record();
    } catch (error) {
      const failure = toFailure(error);
      this.#refuse(failure, head?.target ?? (tunnel === null ? null : { ...tunnel }), head);
    } finally {
      this.#sandbox.end(this);
    }
  }

  cut(code: string): void {
    this.#cutCode ??= code;
    this.#gone.abort();
    this.#outbound?.cut();
    this.#inbound.cut();
  }

  async #decide(head: RequestHead): Promise<void> {
    if (!this.#sandbox.countRequest()) {
      throw new EgressFailure(429, 'requests_exhausted', 'this sandbox has made all the requests it may make');
    }
    const decision = await this.#sandbox.engine.request(head, this.#gone.signal);
    if (decision.action === 'deny') {
      this.#tell(decision);
      return;
    }
    this.#allowed = decision;
    this.#gone.signal.throwIfAborted();
    const declared = declaredBytes(this.#inbound);
    if (declared !== null && declared > decision.limits.requestBodyBytes) throw this.#tooLarge();
    const answer = await this.#send(decision, declared);
    await this.#giveBack(decision, answer, head.method);
  }

  /** Sends head and body; resolves with the answer, which may come before the body has gone. */
  async #send(allowed: Allowed, declared: number | null): Promise<Answer> {
    const { body, framing, transform } = await this.#prepare(allowed, declared);
    for (let attempt = 0; ; attempt += 1) {
      const outbound = await openOutbound(this.#sandbox.upstream, allowed.head, framing, this.#inbound.isHttp2);
      this.#outbound = outbound;
      if (this.#gone.signal.aborted) outbound.cut();
      outbound.onContinue(() => this.#inbound.sendContinue());
      outbound.onInformation((status, headers) => {
        this.#inbound.sendInformation(status, allowed.response?.({ status, headers }).headers ?? headers);
      });
      if (framing.type === 'none') outbound.body.end();
      else void this.#sendBody(outbound, body, transform);
      try {
        return await outbound.answer;
      } catch (error) {
        // Nothing was answered, and what has no body can be said again on a connection of its own.
        const isStale = outbound.isReused() && framing.type === 'none' && isIdempotent(allowed.head.method);
        if (!isStale || attempt > 1 || this.#gone.signal.aborted) throw error;
      }
    }
  }

  /** The body as it will go out. One that is changed and small is gathered: then its new size is known. */
  async #prepare(
    allowed: Allowed,
    declared: number | null,
  ): Promise<{ body: Readable; framing: Framing; transform: Transform | null }> {
    const { body, hasBody } = this.#inbound;
    if (!hasBody || declared === 0) return { body, framing: { type: 'none' }, transform: null };
    if (allowed.requestBody === undefined) {
      return {
        body,
        framing: declared === null ? { type: 'open' } : { type: 'sized', bytes: declared },
        transform: null,
      };
    }
    const transform = allowed.requestBody();
    const isExpected = valueOf(this.#inbound.headers, 'expect') !== null;
    if (declared === null || declared > GATHERED_BYTES || isExpected)
      return { body, framing: { type: 'open' }, transform };
    const pieces: Buffer[] = [];
    transform.on('data', (piece: Buffer) => pieces.push(piece));
    await pump(body, transform, (chunk) => this.#countOut(chunk, allowed));
    await finished(transform);
    const whole = Buffer.concat(pieces);
    const gathered = new PassThrough();
    gathered.end(whole);
    return { body: gathered, framing: { type: 'sized', bytes: whole.length }, transform: null };
  }

  async #sendBody(outbound: Outbound, body: Readable, transform: Transform | null): Promise<void> {
    const allowed = this.#allowed;
    if (allowed === undefined) return;
    const isGathered = body !== this.#inbound.body;
    const count = (chunk: Buffer): void => {
      if (!isGathered) this.#countOut(chunk, allowed);
    };
    try {
      if (transform === null) await pump(body, outbound.body, count);
      else {
        const passing = pump(transform, outbound.body, () => undefined);
        passing.catch(() => undefined);
        await pump(body, transform, count);
        await finished(transform);
        await passing;
      }
      outbound.sendTrailers(this.#inbound.trailers());
      outbound.body.end();
    } catch (error) {
      // An answer may be on its way already (413, 401): it is given as it is.
      if (error instanceof EgressFailure) this.#fail(error);
      else if (!this.#inbound.isAnswered()) outbound.cut();
    }
  }

  async #giveBack(allowed: Allowed, answer: Answer, method: string): Promise<void> {
    this.#status = answer.status;
    const length = Number(valueOf(answer.headers, 'content-length') ?? 0);
    const isBodiless = method === 'HEAD' || answer.status === 204 || answer.status === 304;
    if (!isBodiless && length > allowed.limits.responseBodyBytes) throw responseTooLarge(allowed);
    const changed = allowed.response?.({ status: answer.status, headers: answer.headers });
    const transform = isBodiless ? null : (changed?.body?.() ?? null);
    const headers = changed?.headers ?? answer.headers;
    const sink = this.#inbound.answer(
      answer.status,
      // Free text of the upstream, which nobody needs: it could hold a value like any header.
      changed === undefined ? answer.statusMessage : '',
      transform === null ? headers : without(headers, 'content-length'),
      isBodiless,
    );
    if (isBodiless) {
      answer.body.resume();
      if (!this.#inbound.isHttp2) await finished(sink);
      return;
    }
    await this.#giveBody(answer, sink, transform, allowed);
  }

  async #giveBody(answer: Answer, sink: Writable, transform: Transform | null, allowed: Allowed): Promise<void> {
    const count = (chunk: Buffer): void => this.#countIn(chunk, allowed);
    if (transform === null) await pump(answer.body, sink, count);
    else {
      // A small body may be written as an endless one: what comes out is bounded like what came in.
      let givenBytes = 0;
      const passing = pump(transform, sink, (chunk) => {
        givenBytes += chunk.length;
        if (givenBytes > allowed.limits.responseBodyBytes) throw responseTooLarge(allowed);
      });
      passing.catch((error: Error) => transform.destroy(error));
      await pump(answer.body, transform, count);
      await finished(transform);
      await passing;
    }
    const trailers = endToEndTrailers(answer.trailers());
    this.#inbound.sendTrailers(allowed.response?.({ status: answer.status, headers: trailers }).headers ?? trailers);
    await finished(sink);
  }

  #countOut(chunk: Buffer, allowed: Allowed): void {
    this.activeAtMs = performance.now();
    this.#bytesOut += chunk.length;
    if (this.#bytesOut > allowed.limits.requestBodyBytes) throw this.#tooLarge();
    this.#spend(chunk);
  }

  #countIn(chunk: Buffer, allowed: Allowed): void {
    this.activeAtMs = performance.now();
    this.#bytesIn += chunk.length;
    if (this.#bytesIn > allowed.limits.responseBodyBytes) throw responseTooLarge(allowed);
    this.#spend(chunk);
  }

  #spend(chunk: Buffer): void {
    if (this.#sandbox.countBytes(chunk.length)) return;
    throw new EgressFailure(429, 'bytes_exhausted', 'this sandbox has moved all the bytes it may move');
  }

  #tooLarge(): EgressFailure {
    const limit = this.#allowed?.limits.requestBodyBytes ?? 0;
    return new EgressFailure(413, 'request_too_large', `a request here may have at most ${limit} bytes`);
  }

  /** While the body goes up, the answer is awaited elsewhere: it is told there. */
  #fail(failure: EgressFailure): void {
    this.#cutCode ??= failure.code;
    this.#tell(failure);
    this.#outbound?.cut();
  }

  #refuse(failure: EgressFailure, target: EgressTarget | null, head: RequestHead | undefined): void {
    this.#outbound?.cut();
    this.#tell(failure);
    const code = this.#cutCode ?? failure.code;
    if (this.#allowed !== undefined) {
      this.#record(code);
      return;
    }
    const { method, requestTarget } = this.#inbound;
    this.#sandbox.engine.refused({
      target: target === null ? null : { host: target.host, port: target.port, isTls: target.isTls },
      asked: printable(`${this.#inbound.authority ?? ''} ${requestTarget.split('?')[0] ?? ''}`),
      method,
      path: head?.path ?? null,
      status: failure.status,
      code,
    });
  }

  #tell(told: { status: number; code: string; message: string }): void {
    if (this.#gone.signal.aborted) return;
    if (this.#inbound.isAnswered()) {
      this.#inbound.cut();
      return;
    }
    this.#status ??= told.status;
    const { headers, body } = toldAs(told);
    const size = declaredBytes(this.#inbound);
    // One that waits to be asked for its body may or may not send it now: nothing can follow on this connection.
    const isUncertain = size === null || size > DROPPED_BYTES || valueOf(this.#inbound.headers, 'expect') !== null;
    const mustClose = this.#inbound.hasBody && !this.#inbound.isHttp2 && isUncertain;
    if (mustClose) headers.push(['connection', 'close']);
    const isHead = this.#inbound.method === 'HEAD';
    const sink = this.#inbound.answer(told.status, '', headers, isHead);
    if (!isHead || !this.#inbound.isHttp2) sink.end(isHead ? undefined : body);
    this.#inbound.body.resume();
  }

  #record(error?: string): void {
    const outcome: Outcome = {
      status: this.#status,
      bytesOut: this.#bytesOut,
      bytesIn: this.#bytesIn,
      durationMs: performance.now() - this.#startedMs,
      ...(error === undefined ? {} : { error }),
    };
    this.#allowed?.record(outcome);
  }
}

const isIdempotent = (method: string): boolean => ['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE', 'TRACE'].includes(method);

const responseTooLarge = ({ limits }: Allowed): EgressFailure =>
  new EgressFailure(502, 'response_too_large', `the answer has more than ${limits.responseBodyBytes} bytes`);

/** Trailers may not say what a head must (RFC 9110, 6.5.1). */
function endToEndTrailers(trailers: HeaderList): HeaderList {
  return trailers.filter(([name]) => !/^(content-|transfer-|host$|set-cookie$|authorization$|x-longhaul-)/.test(name));
}
