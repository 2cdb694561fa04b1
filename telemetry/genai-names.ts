/**
 * Every name our telemetry uses, in one place. The `gen_ai.*` ones are copied: they are in development, and the package
 * that carries them marks all of them as moved.
 */
export const SEMCONV = {
  /** The last release of the main conventions that defines them; since then they live in `semantic-conventions-genai`. */
  version: '1.45.0',
  schemaUrl: 'https://opentelemetry.io/schemas/1.45.0',
} as const;

/** Values of `gen_ai.operation.name`; also the first word of a span's name. */
export const OPERATION = {
  workflow: 'invoke_workflow',
  agent: 'invoke_agent',
  chat: 'chat',
  tool: 'execute_tool',
} as const;

/** Attributes of the GenAI conventions. */
export const GEN_AI = {
  operation: 'gen_ai.operation.name',
  provider: 'gen_ai.provider.name',
  conversationId: 'gen_ai.conversation.id',
  workflowName: 'gen_ai.workflow.name',
  agentId: 'gen_ai.agent.id',
  agentName: 'gen_ai.agent.name',
  agentVersion: 'gen_ai.agent.version',
  requestModel: 'gen_ai.request.model',
  requestStream: 'gen_ai.request.stream',
  responseModel: 'gen_ai.response.model',
  /** Seconds; streams only. */
  timeToFirstChunk: 'gen_ai.response.time_to_first_chunk',
  /** Includes what was read from and written to a cache. */
  inputTokens: 'gen_ai.usage.input_tokens',
  outputTokens: 'gen_ai.usage.output_tokens',
  cacheReadTokens: 'gen_ai.usage.cache_read.input_tokens',
  /** Renamed to `cache_write` on the way to the next release. */
  cacheCreationTokens: 'gen_ai.usage.cache_creation.input_tokens',
  reasoningTokens: 'gen_ai.usage.reasoning.output_tokens',
  toolName: 'gen_ai.tool.name',
  toolType: 'gen_ai.tool.type',
  toolCallId: 'gen_ai.tool.call.id',
  /** Content, from here on: only with the opt-in. */
  toolArguments: 'gen_ai.tool.call.arguments',
  toolResult: 'gen_ai.tool.call.result',
  inputMessages: 'gen_ai.input.messages',
  outputMessages: 'gen_ai.output.messages',
  systemInstructions: 'gen_ai.system_instructions',
} as const;

/** Attributes of the general conventions. */
export const GENERAL = { errorType: 'error.type', userId: 'user.id', httpStatus: 'http.response.status_code' } as const;

/** What the conventions have no word for. */
export const LONGHAUL = {
  teamId: 'longhaul.team.id',
  deploymentId: 'longhaul.deployment.id',
  rootSessionId: 'longhaul.root_session.id',
  harness: 'longhaul.harness',
  runtime: 'longhaul.runtime',
  repo: 'longhaul.repo',
  labels: 'longhaul.labels',
  trigger: 'longhaul.trigger',
  turn: 'longhaul.turn',
  /** A turn that waits for a person goes on in a span of its own: 0, 1, … */
  turnSegment: 'longhaul.turn.segment',
  turnState: 'longhaul.turn.state',
  stopReason: 'longhaul.stop_reason',
  step: 'longhaul.step',
  /** Id of the ledger row. */
  callId: 'longhaul.call.id',
  /** Why a model is asked for under one name and answers under another. */
  requestedModel: 'longhaul.requested_model',
  modelDeployment: 'longhaul.model_deployment',
  protocol: 'longhaul.protocol',
  /** Micro-dollars; absent when the model has no price. */
  costMicros: 'longhaul.cost_micros',
  usageBasis: 'longhaul.usage_basis',
  /** `hit`: the gateway gave an earlier answer again. */
  cache: 'longhaul.cache',
  generationSeconds: 'longhaul.generation_time',
  effectId: 'longhaul.effect.id',
  effectState: 'longhaul.effect.state',
  effectGeneration: 'longhaul.effect.generation',
  verdict: 'longhaul.effect.verdict',
  sandboxId: 'longhaul.sandbox.id',
  approvalId: 'longhaul.approval.id',
  approvalState: 'longhaul.approval.state',
  approvalDecision: 'longhaul.approval.decision',
  waitedSeconds: 'longhaul.approval.waited',
  inputType: 'longhaul.input.type',
  eventId: 'longhaul.event.id',
  /** True when content was cut or a secret taken out. */
  contentRedacted: 'longhaul.content.redacted',
  attempt: 'longhaul.attempt',
  durationSeconds: 'longhaul.attempt.duration',
} as const;

/** Events on spans. */
export const SPAN_EVENT = { attempt: 'longhaul.attempt', approval: 'longhaul.approval' } as const;

/** Metrics of the GenAI conventions, with the bucket bounds these advise. */
export const METRIC = {
  operationDuration: {
    name: 'gen_ai.client.operation.duration',
    unit: 'seconds',
    buckets: [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92],
  },
  timeToFirstChunk: {
    name: 'gen_ai.client.operation.time_to_first_chunk',
    unit: 'seconds',
    buckets: [0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60],
  },
  tokenUsage: {
    name: 'gen_ai.client.token.usage',
    unit: '',
    buckets: [1, 4, 16, 64, 256, 1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216, 67_108_864],
  },
} as const;

/** Attribute of the token metric: `input` or `output`. */
export const TOKEN_TYPE = 'gen_ai.token.type';

/** A metric's name as Prometheus writes it. */
export function prometheusName(metric: { name: string; unit: string }): string {
  const name = metric.name.replaceAll('.', '_');
  return metric.unit === '' ? name : `${name}_${metric.unit}`;
}
