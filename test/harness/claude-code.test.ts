import { readdirSync, readFileSync } from 'node:fs';
import { describe, it } from 'vitest';
import { ClaudeCodeDriver } from '../../activities/harness/claude-code/driver.ts';
import { readHarnessConfig } from '../../activities/harness/config.ts';
import { LocalStdio } from '../../activities/harness/host/stdio-local.ts';
import type { HarnessSpec } from '../../activities/harness/port.ts';
import type { HarnessUnderTest } from '../conformance/harness-bed.ts';
import { harnessConformance } from '../conformance/harness.suite.ts';
import { installed } from '../support/harnesses.ts';

const { binary, reason } = { reason: '', ...(await installed('claude-code')) };
if (binary === undefined) {
  describe('harness port: claude-code', () => {
    it.skip(`NOT TESTED: ${reason}`);
  });
} else {
  harnessConformance('claude-code', () => Promise.resolve(claudeUnderTest()));
}

/** The real Claude Code without a hook: the calls of our tools wait over MCP. */
function claudeUnderTest(): HarnessUnderTest {
  const place = new LocalStdio();
  const { installDir } = readHarnessConfig();
  return {
    driver: () => new ClaudeCodeDriver({ place, installDir }),
    placement: 'inline',
    hands: 'platform',
    shell: { tool: 'mcp__longhaul__bash', input: (command) => ({ command }) },
    kill: ({ sessionId }) => place.end(sessionId, AbortSignal.timeout(60_000)),
    pids: (spec) => Promise.resolve(pidsOf(spec)),
    close: () => Promise.resolve(),
  };
}

function pidsOf({ sessionId }: HarnessSpec): number[] {
  return readdirSync('/proc').flatMap((name) => {
    try {
      const environment = readFileSync(`/proc/${name}/environ`, 'latin1');
      return environment.includes(`LONGHAUL_HARNESS_OF=${sessionId}`) ? [Number(name)] : [];
    } catch {
      return [];
    }
  });
}
