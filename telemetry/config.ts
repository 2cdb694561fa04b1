/** How spans leave this process; undefined: not at all. */
export interface TracingConfig {
  sampler: { ratio: number; followsParent: boolean };
  batch: { maxQueueSpans: number; maxBatchSpans: number; delayMs: number; timeoutMs: number };
  serviceName: string | undefined;
  withContent: boolean;
  openInference: boolean;
}

type Environment = Record<string, string | undefined>;

export interface TracingSettings {
  config: TracingConfig | undefined;
  /** What was asked for and is not done, for the log. */
  problem: string | undefined;
}

/**
 * The standard variables of OpenTelemetry. Where traces go (`OTEL_EXPORTER_OTLP_*`: endpoint, headers, certificates,
 * compression, timeout) the exporter reads by itself. Nothing here is refused: telemetry must not keep a process from starting.
 */
export function readTracingConfig(env: Environment = process.env): TracingSettings {
  const endpoint = text(env, 'OTEL_EXPORTER_OTLP_TRACES_ENDPOINT') ?? text(env, 'OTEL_EXPORTER_OTLP_ENDPOINT');
  if (endpoint === undefined || text(env, 'OTEL_SDK_DISABLED')?.toLowerCase() === 'true') return off();
  const exporter = text(env, 'OTEL_TRACES_EXPORTER') ?? 'otlp';
  if (exporter === 'none') return off();
  if (exporter !== 'otlp') return off(`OTEL_TRACES_EXPORTER=${exporter} is not supported: only otlp is`);
  const protocol = text(env, 'OTEL_EXPORTER_OTLP_TRACES_PROTOCOL') ?? text(env, 'OTEL_EXPORTER_OTLP_PROTOCOL');
  if (protocol !== undefined && protocol !== 'http/protobuf') {
    return off(`OTEL_EXPORTER_OTLP_PROTOCOL=${protocol} is not supported: only http/protobuf is`);
  }
  if (!URL.canParse(endpoint)) return off('OTEL_EXPORTER_OTLP_ENDPOINT is not a URL');
  const withContent = env['LONGHAUL_TRACE_CONTENT'] === '1';
  return {
    problem: undefined,
    config: {
      sampler: readSampler(env),
      batch: {
        // Spans with content are large: fewer may wait.
        maxQueueSpans: number(env, 'OTEL_BSP_MAX_QUEUE_SIZE', withContent ? 512 : 2_048),
        maxBatchSpans: number(env, 'OTEL_BSP_MAX_EXPORT_BATCH_SIZE', withContent ? 64 : 512),
        delayMs: number(env, 'OTEL_BSP_SCHEDULE_DELAY', 5_000),
        timeoutMs: number(env, 'OTEL_BSP_EXPORT_TIMEOUT', 30_000),
      },
      serviceName: text(env, 'OTEL_SERVICE_NAME'),
      withContent,
      openInference: env['LONGHAUL_TRACE_OPENINFERENCE'] === '1',
    },
  };
}

const off = (problem?: string): TracingSettings => ({ config: undefined, problem });

function readSampler(env: Environment): TracingConfig['sampler'] {
  const name = text(env, 'OTEL_TRACES_SAMPLER') ?? 'parentbased_always_on';
  const followsParent = name.startsWith('parentbased_');
  if (name.endsWith('always_off')) return { ratio: 0, followsParent };
  if (!name.endsWith('traceidratio')) return { ratio: 1, followsParent };
  const ratio = Number(text(env, 'OTEL_TRACES_SAMPLER_ARG') ?? '1');
  return { ratio: ratio >= 0 && ratio <= 1 ? ratio : 1, followsParent };
}

function text(env: Environment, name: string): string | undefined {
  const value = env[name]?.trim();
  return value === undefined || value === '' ? undefined : value;
}

function number(env: Environment, name: string, standard: number): number {
  const value = Number(text(env, name) ?? standard);
  return Number.isSafeInteger(value) && value > 0 ? value : standard;
}
