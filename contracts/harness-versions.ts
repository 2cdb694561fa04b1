/** Zod-free. The programs behind harnesses, each in the one version this release is tested with. */

export interface HarnessPackage {
  /** Name and exact version at the npm registry. */
  package: string;
  version: string;
  /** The value of an agent's `harness` that runs it. */
  harness: 'opencode' | 'claude-code' | 'codex' | 'github-copilot' | 'acp';
  /** About what an installation takes on disk. */
  sizeMb: number;
  licence: string;
}

/** By the name that `longhaul harness install` takes. */
export const HARNESS_PACKAGES = {
  opencode: { package: 'opencode-ai', version: '1.18.33', harness: 'opencode', sizeMb: 354, licence: 'MIT' },
  'claude-code': {
    package: '@anthropic-ai/claude-code',
    version: '2.1.329',
    harness: 'claude-code',
    sizeMb: 361,
    licence: 'proprietary',
  },
  codex: { package: '@openai/codex', version: '0.169.0', harness: 'codex', sizeMb: 404, licence: 'Apache-2.0' },
  'github-copilot': {
    package: '@github/copilot-sdk',
    version: '1.0.14',
    harness: 'github-copilot',
    sizeMb: 128,
    licence: 'MIT',
  },
  gemini: { package: '@google/gemini-cli', version: '0.61.0', harness: 'acp', sizeMb: 100, licence: 'Apache-2.0' },
  // The last version for Node 20.
  qwen: { package: '@qwen-code/qwen-code', version: '0.15.10', harness: 'acp', sizeMb: 144, licence: 'Apache-2.0' },
} as const satisfies Record<string, HarnessPackage>;

export type HarnessInstallName = keyof typeof HARNESS_PACKAGES;

export const HARNESS_INSTALL_NAMES = Object.keys(HARNESS_PACKAGES) as HarnessInstallName[];
