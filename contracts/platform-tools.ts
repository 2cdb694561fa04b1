/** Zod-free. Tools of the product itself that agents get beside their own. */
import type { ToolDefinition } from './agent-tools.ts';
import type { AgentDefinition } from './definitions.ts';

export const PLATFORM_TOOL_NAMES = ['list_artifacts', 'read_skill', 'report_issue', 'request_approval'] as const;
export type PlatformToolName = (typeof PLATFORM_TOOL_NAMES)[number];

export const PLATFORM_TOOLS: Record<PlatformToolName, ToolDefinition> = {
  list_artifacts: {
    name: 'list_artifacts',
    description:
      'Lists the files this session has published. A file written below /mnt/session/outputs is published when the turn ends.',
    input_schema: { type: 'object', properties: {}, additionalProperties: false },
  },
  read_skill: {
    name: 'read_skill',
    description:
      'Reads a skill: its instructions (SKILL.md) with a list of its other files, or one of those. Read it before you do what it is for.',
    input_schema: {
      type: 'object',
      properties: {
        name: { type: 'string', description: 'Name of the skill.' },
        path: { type: 'string', description: 'A file of it; default SKILL.md.' },
      },
      required: ['name'],
      additionalProperties: false,
    },
  },
  report_issue: {
    name: 'report_issue',
    description:
      'Tells the people who watch this session that something is wrong (a missing permission, a broken tool, a doubt about the task). Nobody answers; go on or end.',
    input_schema: {
      type: 'object',
      properties: {
        title: { type: 'string', description: 'One line.' },
        details: { type: 'string', description: 'What happened, and what is needed.' },
        severity: { type: 'string', enum: ['info', 'warning', 'error'], description: 'Default: warning.' },
      },
      required: ['title'],
      additionalProperties: false,
    },
  },
  request_approval: {
    name: 'request_approval',
    description:
      'Asks a person and waits for the answer, which may take hours. Says yes, with what the person changed in `arguments`, or no with a reason. Ask before anything that cannot be undone and that no other rule asks about.',
    input_schema: {
      type: 'object',
      properties: {
        title: { type: 'string', description: 'The question in one line.' },
        details: { type: 'string', description: 'What a person has to know to decide.' },
        arguments: { type: 'object', description: 'What would be done; the person may change it.' },
      },
      required: ['title'],
      additionalProperties: false,
    },
  },
};

/** The platform's tools an agent has, in an order that never changes: a tool of its own under such a name comes first. */
export function platformTools(agent: AgentDefinition): PlatformToolName[] {
  return PLATFORM_TOOL_NAMES.filter((name) => {
    const isGiven = name === 'read_skill' ? agent.skills.length > 0 : agent.harness !== 'native';
    return isGiven && !agent.tools.some((tool) => tool.type === 'custom' && tool.name === name);
  });
}
