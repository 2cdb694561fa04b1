import { LonghaulError } from '../../contracts/error-codes.ts';
import { parseJsonObject } from '../http.ts';
import type { Protocol } from '../protocol.ts';
import { findTopLevelFields, type FieldSpan } from './json-fields.ts';

/** What the gateway must know of a request body. */
interface RequestFacts {
  model: string;
  stream: boolean;
}

const MAX_MODEL_CHARS = 256;
const FIELDS = ['model', 'stream', 'stream_options'] as const;

/** Reads model and stream flag, without parsing where the body's bytes allow it. */
export function readRequestFacts(body: Buffer): RequestFacts {
  const spans = findTopLevelFields(body, FIELDS);
  const modelSpan = spans?.get('model');
  const fields: Record<string, unknown> =
    spans === undefined || modelSpan === undefined
      ? parseJsonObject(body)
      : { model: valueAt(body, modelSpan), stream: valueAt(body, spans.get('stream')) };
  const model = fields['model'];
  if (typeof model !== 'string' || model === '' || model.length > MAX_MODEL_CHARS) {
    throw new LonghaulError('invalid_request', 'must be the id of a model', { field: 'model' });
  }
  return { model, stream: fields['stream'] === true };
}

/** Replaces the model id; every other byte stays as the caller sent it. */
export function withModel(body: Buffer, model: string): Buffer {
  const span = findTopLevelFields(body, ['model'])?.get('model');
  if (span === undefined) return Buffer.from(JSON.stringify({ ...parseJsonObject(body), model }));
  return Buffer.concat([body.subarray(0, span.start), Buffer.from(JSON.stringify(model)), body.subarray(span.end)]);
}

/** Chat streams report their usage only when asked to. */
export function withUsageReport(protocol: Protocol, body: Buffer, stream: boolean): Buffer {
  if (protocol !== 'chat' || !stream) return body;
  const spans = findTopLevelFields(body, FIELDS);
  if (spans !== undefined && !spans.has('stream_options')) {
    const start = body.indexOf('{') + 1;
    const option = Buffer.from('"stream_options":{"include_usage":true},');
    return Buffer.concat([body.subarray(0, start), option, body.subarray(start)]);
  }
  const request = parseJsonObject(body);
  const options = request['stream_options'];
  const given = typeof options === 'object' && options !== null ? (options as Record<string, unknown>) : {};
  if (given['include_usage'] === true) return body;
  return Buffer.from(JSON.stringify({ ...request, stream_options: { ...given, include_usage: true } }));
}

function valueAt(body: Buffer, span: FieldSpan | undefined): unknown {
  if (span === undefined) return undefined;
  try {
    return JSON.parse(body.toString('utf8', span.start, span.end));
  } catch (error) {
    throw new LonghaulError('invalid_json', `the body is not JSON: ${(error as Error).message}`);
  }
}
