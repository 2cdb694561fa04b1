// Health check of a container without curl: exit code 0 when the address answers 200.
const answer = await fetch(process.argv[2], { signal: AbortSignal.timeout(4_000) }).catch(() => undefined);
process.exit(answer?.status === 200 ? 0 : 1);
