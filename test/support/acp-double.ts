import { fileURLToPath } from 'node:url';
import type { AcpRecipe } from '../../activities/harness/acp/recipes.ts';

/** The agent double as a recipe: what the driver must know of it beforehand. `ways` are words for its FAKE_ACP. */
export function doubleRecipe(ways = '', argv = [process.execPath, AGENT]): AcpRecipe {
  return {
    name: 'double',
    argv,
    args: [],
    authMethod: null,
    model: 'protocol',
    env: ({ spec }) => ({
      OPENAI_BASE_URL: `${spec.model.baseUrl}/v1`,
      OPENAI_API_KEY: spec.model.key,
      FAKE_ACP: ways,
    }),
    files: ({ spec }) => (spec.systemPrompt === null ? [] : [{ path: 'AGENTS.md', content: spec.systemPrompt }]),
    ownTool: ({ name }) => /^mcp_longhaul_(\w+)$/.exec(name ?? '')?.[1],
    hidesErrors: ways.includes('hides-errors'),
    loadsAfterMs: 0,
    can: { systemPrompt: 'append', usageBasis: 'per_turn', skills: false, remoteTools: false },
    notes: [],
  };
}

const AGENT = fileURLToPath(new URL('../doubles/acp-agent.mjs', import.meta.url));
