/** Zod-free. Every limit of the product, with its unit in the name. Nothing is unbounded (invariant 9). */
export const LIMITS = {
  /** HTTP */
  requestBodyBytes: 4 * 1024 * 1024,
  gatewayBodyBytes: 32 * 1024 * 1024,
  pageSizeDefault: 20,
  pageSizeMax: 1000,
  idempotencyTtlMs: 24 * 3_600_000,
  /** Turns and steps of one page of a trace. */
  traceSteps: 100,
  traceStepsMax: 200,
  traceOtherCalls: 100,
  sseBufferBytes: 4 * 1024 * 1024,
  ssePingMs: 15_000,

  /** Resources */
  systemPromptChars: 100_000,
  toolsPerAgent: 128,
  mcpServersPerAgent: 20,
  metadataPairs: 16,
  metadataKeyChars: 64,
  metadataValueChars: 512,
  nameChars: 256,
  descriptionChars: 2048,
  titleChars: 500,
  eventsPerSend: 100,
  contentBlocksPerMessage: 100,
  messageTextChars: 1_000_000,
  initialEvents: 50,
  vaultIds: 20,

  /** Session workflow */
  queuedInputs: 1_000,
  seenInputIds: 500,
  historyEvents: 1_500,
  stepsPerTurn: 500,
  turnWallClockMs: 6 * 3_600_000,
  sessionWallClockMs: 90 * 24 * 3_600_000,
  sessionIdleMs: 30 * 24 * 3_600_000,
  approvalTtlMs: 24 * 3_600_000,
  approvalTtlMaxMs: 30 * 24 * 3_600_000,
  modelOutageMs: 3_600_000,
  sandboxOutageMs: 15 * 60_000,
  toolCallsPerStep: 20,

  /** Prompt */
  messageShownBytes: 100_000,
  messageShownHeadBytes: 40_000,
  messageShownTailBytes: 40_000,
  promptCutBytes: 360_000,
  promptKeptBytes: 180_000,
  promptBytes: 4 * 1024 * 1024,
  promptSteps: 20_000,

  /** Tools */
  toolTimeoutMs: 120_000,
  toolTimeoutMaxMs: 3_600_000,
  toolOutputBytes: 30_000,
  toolOutputHeadBytes: 12_000,
  toolOutputTailBytes: 12_000,
  execOutputBytes: 64 * 1024 * 1024,
  fileReadBytes: 256 * 1024,
  fileWriteBytes: 8 * 1024 * 1024,
  globResults: 1_000,
  grepResults: 500,

  /** Sandbox lease: a sandbox without a heartbeat of its session for this long is the reaper's. */
  sandboxLeaseMs: 30 * 60_000,
  sandboxIdlePauseMs: 15 * 60_000,
  sandboxMemoryBytes: 2 * 1024 * 1024 * 1024,
  sandboxDiskBytes: 10 * 1024 * 1024 * 1024,
  sandboxPids: 512,
  sandboxCpus: 2,

  /** Gateway */
  virtualKeyTtlMs: 24 * 3_600_000,
  virtualKeyParallel: 16,
  keyParallelMax: 10_000,
  modelsPerKey: 100,
  labels: 20,
  labelChars: 64,
  usageGroupDimensions: 4,
  repoChars: 256,
  priceTiers: 8,
  pricesPerTeam: 10_000,
  recordedCallBytes: 16 * 1024 * 1024,
  recordedCallTtlMs: 7 * 24 * 3_600_000,
  abandonedCallMs: 3_600_000,
  expiredKeyKeptMs: 7 * 24 * 3_600_000,
  storedResponseTtlMs: 31 * 24 * 3_600_000,
  backgroundResponseMs: 48 * 3_600_000,
  budgetThresholds: 10,
  /** Output a call is held money for when its caller set no limit; grows while it streams. */
  budgetOutputTokens: 4_096,
  /** A stream starts when the money is there for its input and this much output. */
  budgetMinOutputTokens: 256,
  modelFirstByteMs: 120_000,
  modelIdleMs: 120_000,
  modelTotalMs: 20 * 60_000,

  /** Caches */
  cacheableRequestBytes: 4 * 1024 * 1024,
  cachedAnswerBytes: 1024 * 1024,
  cachedAnswers: 100_000,
  contentCacheTtlMs: 7 * 24 * 3_600_000,
  promptPrefixesPerVersion: 20,
} as const;
