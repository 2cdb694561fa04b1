import { createHash } from 'node:crypto';
import { Sha256 } from '@aws-crypto/sha256-js';
import { EventStreamCodec } from '@smithy/eventstream-codec';
import { SignatureV4 } from '@smithy/signature-v4';
import { fromUtf8, toUtf8 } from '@smithy/util-utf8';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { readRequestFacts, withFields } from '../routing/request.ts';
import { startLater } from './deferred.ts';
import { HttpCall } from './http-call.ts';
import type { UpstreamPools } from './pools.ts';
import type { AnswerSink, Provider, ProviderRequest, Served } from './port.ts';

/** Keys that sign; the secret stays in this process. */
export interface AwsKeys {
  accessKeyId: string;
  secretAccessKey: string;
  sessionToken?: string;
}

interface BedrockOptions {
  region: string;
  baseUrl: string | undefined;
  /** Undefined: AWS' own order of profiles, roles and instance metadata. */
  keys: AwsKeys | undefined;
  pools: UpstreamPools;
}

const ANTHROPIC_VERSION = 'bedrock-2023-05-31';
const MAX_FRAME_BYTES = 24 * 1024 * 1024;
const PRELUDE_BYTES = 4;
const EVENT_STREAM = 'application/vnd.amazon.eventstream';
const codec = new EventStreamCodec(toUtf8, fromUtf8);

/** Anthropic's models on Amazon Bedrock, signed by AWS' own code. */
export async function createBedrockProvider(options: BedrockOptions): Promise<Provider> {
  const { region, pools } = options;
  const { origin, host, hostname, protocol } = new URL(
    options.baseUrl ?? `https://bedrock-runtime.${region}.amazonaws.com`,
  );
  const signer = new SignatureV4({
    service: 'bedrock',
    region,
    sha256: Sha256,
    credentials: options.keys ?? (await ambientKeys()),
  });
  const sign = async (path: string, body: Buffer, isStream: boolean): Promise<Record<string, string>> => {
    const signed = await signer.sign({
      method: 'POST',
      protocol,
      hostname,
      path,
      query: {},
      headers: {
        host,
        'content-type': 'application/json',
        accept: isStream ? EVENT_STREAM : 'application/json',
        // Given, so that the body is hashed by native code.
        'x-amz-content-sha256': createHash('sha256').update(body).digest('hex'),
      },
      body,
    });
    const { host: _host, 'content-type': _type, ...headers } = signed.headers;
    return headers;
  };
  return {
    name: 'bedrock',
    start: (request, sink) =>
      startLater(sink, async () => {
        const { path, body, isStream } = wireOf(request);
        const headers = await sign(path, body, isStream).catch((error: unknown) => {
          throw new LonghaulError('provider_auth', 'the gateway has no AWS credentials that work', { cause: error });
        });
        return () => new HttpCall(pools.to(origin), { path, headers, body }, new BedrockSink(sink));
      }),
    close: () => Promise.resolve(),
  };
}

async function ambientKeys(): Promise<() => Promise<AwsKeys>> {
  const { defaultProvider } = await import('@aws-sdk/credential-provider-node');
  return defaultProvider();
}

/** Model and stream flag stand in the path, versions and betas in the body. */
function wireOf(request: ProviderRequest): { path: string; body: Buffer; isStream: boolean } {
  const isStream = readRequestFacts(request.body).stream;
  const betas = request.headers['anthropic-beta'];
  const body = withFields(request.body, {
    model: undefined,
    stream: undefined,
    anthropic_version: ANTHROPIC_VERSION,
    ...(betas === undefined ? {} : { anthropic_beta: betas.split(',').map((beta) => beta.trim()) }),
  });
  const operation = isStream ? 'invoke-with-response-stream' : 'invoke';
  return { path: `/model/${encodeURIComponent(request.model)}/${operation}`, body, isStream };
}

/** Turns what Bedrock says into what Anthropic's API would say: events out of binary frames, errors in its shape. */
class BedrockSink implements AnswerSink {
  readonly #sink: AnswerSink;
  #rest: Buffer = Buffer.alloc(0);
  #kind: 'plain' | 'framed' | 'error' = 'plain';
  #isEnded = false;

  constructor(sink: AnswerSink) {
    this.#sink = sink;
  }

  onHead(status: number, headers: Record<string, string>, served?: Served): void {
    const isFramed = headers['content-type'] === EVENT_STREAM;
    this.#kind = status >= 400 ? 'error' : isFramed ? 'framed' : 'plain';
    if (this.#kind === 'plain') {
      this.#sink.onHead(status, headers, served);
      return;
    }
    const { 'content-length': _length, ...kept } = headers;
    const type = this.#kind === 'framed' ? 'text/event-stream; charset=utf-8' : 'application/json';
    this.#sink.onHead(status, { ...kept, 'content-type': type }, served);
  }

  onData(chunk: Buffer): boolean {
    if (this.#isEnded) return true;
    if (this.#kind === 'plain') return this.#sink.onData(chunk);
    this.#rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    if (this.#kind === 'error') return true;
    const events: string[] = [];
    try {
      for (let frame = this.#takeFrame(); frame !== undefined; frame = this.#takeFrame()) events.push(eventOf(frame));
    } catch (error) {
      this.#isEnded = true;
      const broken = new LonghaulError('provider_unavailable', 'a frame of the answer is broken', { cause: error });
      this.#sink.onFailure(broken, true);
      return true;
    }
    return events.length === 0 ? true : this.#sink.onData(Buffer.from(events.join('')));
  }

  onEnd(): void {
    if (this.#isEnded) return;
    if (this.#kind === 'error') this.#sink.onData(Buffer.from(errorBodyOf(this.#rest)));
    this.#sink.onEnd();
  }

  onFailure(error: Error, billed: boolean): void {
    if (!this.#isEnded) this.#sink.onFailure(error, billed);
  }

  #takeFrame(): Buffer | undefined {
    if (this.#rest.length < PRELUDE_BYTES) return undefined;
    const sizeBytes = this.#rest.readUInt32BE(0);
    if (sizeBytes > MAX_FRAME_BYTES) throw new Error(`a frame of ${sizeBytes} bytes`);
    if (this.#rest.length < sizeBytes) return undefined;
    const frame = this.#rest.subarray(0, sizeBytes);
    this.#rest = this.#rest.subarray(sizeBytes);
    return frame;
  }
}

/** AWS has `{"message"}` alone, or text of a proxy in between. */
function errorBodyOf(body: Buffer): string {
  const text = body.toString('utf8');
  let message: unknown;
  try {
    const said = JSON.parse(text) as { message?: unknown; Message?: unknown } | null;
    message = said?.message ?? said?.Message;
  } catch {
    message = text;
  }
  const error = { type: 'api_error', message: typeof message === 'string' ? message : 'Bedrock gave no reason' };
  return JSON.stringify({ type: 'error', error });
}

/** The event in a frame; the codec checks its checksums. */
function eventOf(frame: Buffer): string {
  const { headers, body } = codec.decode(frame);
  const payload = JSON.parse(toUtf8(body)) as { bytes?: string; message?: string };
  if (headers[':message-type']?.value === 'event') {
    if (payload.bytes === undefined) return '';
    const data = Buffer.from(payload.bytes, 'base64').toString('utf8');
    const { type } = JSON.parse(data) as { type: string };
    return `event: ${type}\ndata: ${data}\n\n`;
  }
  const kind = String(headers[':exception-type']?.value ?? headers[':error-code']?.value ?? 'error');
  const message = payload.message ?? kind;
  const data = JSON.stringify({ type: 'error', error: { type: errorTypeOf(kind), message } });
  return `event: error\ndata: ${data}\n\n`;
}

function errorTypeOf(exception: string): string {
  if (exception === 'throttlingException') return 'rate_limit_error';
  if (exception === 'validationException') return 'invalid_request_error';
  if (exception === 'modelTimeoutException') return 'timeout_error';
  return exception === 'serviceUnavailableException' ? 'overloaded_error' : 'api_error';
}
