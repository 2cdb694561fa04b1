import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { gunzipSync } from 'node:zlib';
import protobuf from 'protobufjs';

/** The part of OTLP's trace protocol that says what a span is, written down from its specification. */
const PROTOCOL = `
  syntax = "proto3";
  message Request { repeated ResourceSpans resource_spans = 1; }
  message ResourceSpans { Resource resource = 1; repeated ScopeSpans scope_spans = 2; }
  message Resource { repeated KeyValue attributes = 1; }
  message ScopeSpans { repeated Span spans = 2; }
  message Span {
    bytes trace_id = 1; bytes span_id = 2; string trace_state = 3; bytes parent_span_id = 4; string name = 5; int32 kind = 6;
    fixed64 start_time_unix_nano = 7; fixed64 end_time_unix_nano = 8; repeated KeyValue attributes = 9;
    repeated Event events = 11; repeated Link links = 13; Status status = 15;
  }
  message Event { fixed64 time_unix_nano = 1; string name = 2; repeated KeyValue attributes = 3; }
  message Link { bytes trace_id = 1; bytes span_id = 2; }
  message Status { string message = 2; int32 code = 3; }
  message KeyValue { string key = 1; AnyValue value = 2; }
  message AnyValue {
    oneof value { string string_value = 1; bool bool_value = 2; int64 int_value = 3; double double_value = 4; ArrayValue array_value = 5; }
  }
  message ArrayValue { repeated AnyValue values = 1; }
`;

type Value = string | number | boolean | Value[] | undefined;

export interface ReceivedSpan {
  traceId: string;
  spanId: string;
  /** Empty for a root. */
  parentSpanId: string;
  name: string;
  kind: number;
  startMs: number;
  endMs: number;
  attributes: Record<string, Value>;
  events: { name: string; attributes: Record<string, Value> }[];
  links: { traceId: string; spanId: string }[];
  isError: boolean;
  /** Of the process that sent it. */
  service: Value;
}

export interface Collector {
  url: string;
  /** Spans so far; one that was sent twice counts once. */
  spans(): ReceivedSpan[];
  /** Everything that was received, as bytes. */
  bytes(): Buffer;
  headers(): Record<string, unknown>[];
  close(): Promise<void>;
}

interface WireSpan {
  traceId: Uint8Array;
  spanId: Uint8Array;
  parentSpanId: Uint8Array;
  name: string;
  kind: number;
  startTimeUnixNano: { toString(): string };
  endTimeUnixNano: { toString(): string };
  attributes: WirePair[];
  events: { name: string; attributes: WirePair[] }[];
  links: { traceId: Uint8Array; spanId: Uint8Array }[];
  status: { code: number } | null;
}
interface WirePair {
  key: string;
  value: Record<string, unknown> | null;
}

/** A collector that takes OTLP over HTTP with protobuf bodies, as any back end does. */
export async function startCollector(): Promise<Collector> {
  const type = protobuf.parse(PROTOCOL).root.lookupType('Request');
  const bodies: Buffer[] = [];
  const headers: Record<string, unknown>[] = [];
  const server = createServer((req, res) => {
    const chunks: Buffer[] = [];
    req.on('data', (chunk: Buffer) => chunks.push(chunk));
    req.on('end', () => {
      const body = Buffer.concat(chunks);
      if (req.method !== 'POST' || req.url !== '/v1/traces') {
        res.writeHead(404).end();
        return;
      }
      bodies.push(req.headers['content-encoding'] === 'gzip' ? gunzipSync(body) : body);
      headers.push(req.headers);
      res.writeHead(200, { 'content-type': 'application/x-protobuf' }).end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    spans: () => {
      const all = new Map<string, ReceivedSpan>();
      for (const body of bodies) for (const span of decode(type, body)) all.set(`${span.traceId}/${span.spanId}`, span);
      return [...all.values()];
    },
    bytes: () => Buffer.concat(bodies),
    headers: () => headers,
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function decode(type: protobuf.Type, body: Buffer): ReceivedSpan[] {
  const message = type.decode(body) as unknown as {
    resourceSpans: { resource: { attributes: WirePair[] } | null; scopeSpans: { spans: WireSpan[] }[] }[];
  };
  return message.resourceSpans.flatMap(({ resource, scopeSpans }) => {
    const service = pairs(resource?.attributes ?? [])['service.name'];
    return scopeSpans.flatMap(({ spans }) => spans.map((span) => read(span, service)));
  });
}

function read(span: WireSpan, service: Value): ReceivedSpan {
  return {
    traceId: hex(span.traceId),
    spanId: hex(span.spanId),
    parentSpanId: hex(span.parentSpanId),
    name: span.name,
    kind: span.kind,
    startMs: Number(span.startTimeUnixNano.toString()) / 1e6,
    endMs: Number(span.endTimeUnixNano.toString()) / 1e6,
    attributes: pairs(span.attributes),
    events: span.events.map(({ name, attributes }) => ({ name, attributes: pairs(attributes) })),
    links: span.links.map((link) => ({ traceId: hex(link.traceId), spanId: hex(link.spanId) })),
    isError: span.status?.code === 2,
    service,
  };
}

function pairs(list: WirePair[]): Record<string, Value> {
  return Object.fromEntries(list.map(({ key, value }) => [key, valueOf(value)]));
}

function valueOf(value: Record<string, unknown> | null): Value {
  if (value === null) return undefined;
  if (typeof value['stringValue'] === 'string' && value['value'] === 'stringValue') return value['stringValue'];
  switch (value['value']) {
    case 'boolValue':
      return value['boolValue'] as boolean;
    case 'intValue':
      return Number(String(value['intValue']));
    case 'doubleValue':
      return value['doubleValue'] as number;
    case 'arrayValue':
      return (value['arrayValue'] as { values: Record<string, unknown>[] }).values.map(valueOf);
    default:
      return undefined;
  }
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
