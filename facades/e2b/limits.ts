import { LIMITS } from '../../contracts/limits.ts';

/** What this server holds its callers to; sizes of sandboxes and of output are those of all sandboxes. */
export const E2B_LIMITS = {
  requestBodyBytes: 1024 * 1024,
  /** Of one Connect message; input to a command comes in such pieces. */
  messageBytes: 4 * 1024 * 1024,
  uploadBytes: LIMITS.sandboxDiskBytes,
  filesPerUpload: 1_000,
  timeoutDefaultMs: 5 * 60_000,
  timeoutMaxMs: 24 * 3_600_000,
  /** A paused sandbox that nobody resumes. */
  pausedMs: 30 * 24 * 3_600_000,
  endedKeptMs: 24 * 3_600_000,
  endedProcessesKeptMs: 3_600_000,
  commandMs: 24 * 3_600_000,
  openProcesses: 500,
  streamsPerSandbox: 200,
  watchersPerSandbox: 20,
  listEntries: 20_000,
  listDepth: 64,
  snapshotsPerTeam: 100,
  pageSize: 100,
  metadataPairs: 64,
  metadataChars: 1_024,
  environmentVariables: 256,
  environmentBytes: 64 * 1024,
  keepaliveMs: 90_000,
} as const;
