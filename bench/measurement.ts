import type { LonghaulClient } from '../client/index.ts';
import type { DevJson } from '../cli/stack/home.ts';
import type { OwnStack } from '../cli/demo/own-stack.ts';

/** One line of the table. */
export interface Row {
  name: string;
  value: number;
  unit: 'ms' | 's' | 'MB' | 'KB' | '/s';
  /** The value should not be above it. */
  target?: number;
  samples: number;
  /** What else was seen, for whoever wants to know why. */
  note?: string;
}

/** A row of the printed table. */
export function showRow({ name, value, unit, target, samples, note }: Row): string {
  const verdict = target === undefined ? '' : `${value <= target ? 'hit ' : 'MISS'} (≤ ${target} ${unit})`;
  const cells = [name.padEnd(46), showValue(value, unit).padStart(12), `n=${samples}`.padStart(6), verdict];
  return `${cells.join('  ').trimEnd()}${note === undefined ? '' : `\n      ${note}`}`;
}

function showValue(value: number, unit: Row['unit']): string {
  const digits = { ms: Math.abs(value) < 5 ? 2 : 1, s: 2, MB: 0, KB: 1, '/s': 0 }[unit];
  return `${value.toFixed(digits)} ${unit}`;
}

export interface BenchContext {
  stack: OwnStack;
  devJson: DevJson;
  client: LonghaulClient;
  agentId: string;
  environmentId: string;
  /** Fewer samples: says that it works, not how fast it is. */
  quick: boolean;
  say: (line: string) => void;
}

export interface Measurement {
  name: string;
  run: (context: BenchContext) => Promise<Row[]>;
}

/** A message that plays a script. */
export function scriptMessage(steps: object[]): { type: 'user.message'; content: string } {
  return { type: 'user.message', content: `Bench.\n\`\`\`script\n${JSON.stringify(steps)}\n\`\`\`` };
}

/** A session of the bench's agent. */
export async function openSession({ client, agentId, environmentId }: BenchContext): Promise<string> {
  return (await client.sessions.create({ agent: agentId, environment_id: environmentId })).id;
}
