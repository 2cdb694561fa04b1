import { defineSearchAttributeKey, SearchAttributeType } from '@temporalio/common';
import type { InputKind } from '../contracts/states.ts';
import type { InputMessage, SessionArgs } from './messages.ts';
import { sessionWorkflowId } from './ids.ts';

/** Typed search attributes of a session; the worker registers them, so that the server knows them. */
export const SEARCH_ATTRIBUTES = {
  AgentId: SearchAttributeType.KEYWORD,
  TeamId: SearchAttributeType.KEYWORD,
  UserId: SearchAttributeType.KEYWORD,
  Harness: SearchAttributeType.KEYWORD,
  SessionStatus: SearchAttributeType.KEYWORD,
  DeploymentId: SearchAttributeType.KEYWORD,
  Repo: SearchAttributeType.KEYWORD,
  AgentVersion: SearchAttributeType.INT,
  CostMicros: SearchAttributeType.INT,
  Labels: SearchAttributeType.KEYWORD_LIST,
  NeedsApproval: SearchAttributeType.BOOL,
} as const;

const AGENT_ID = defineSearchAttributeKey('AgentId', SEARCH_ATTRIBUTES.AgentId);
const AGENT_VERSION = defineSearchAttributeKey('AgentVersion', SEARCH_ATTRIBUTES.AgentVersion);
const TEAM_ID = defineSearchAttributeKey('TeamId', SEARCH_ATTRIBUTES.TeamId);
const USER_ID = defineSearchAttributeKey('UserId', SEARCH_ATTRIBUTES.UserId);
const HARNESS = defineSearchAttributeKey('Harness', SEARCH_ATTRIBUTES.Harness);
const REPO = defineSearchAttributeKey('Repo', SEARCH_ATTRIBUTES.Repo);
const LABELS = defineSearchAttributeKey('Labels', SEARCH_ATTRIBUTES.Labels);
const DEPLOYMENT_ID = defineSearchAttributeKey('DeploymentId', SEARCH_ATTRIBUTES.DeploymentId);

/** A keyword may be longer on the server; a label need not. */
const KEYWORD_CHARS = 255;

/** What the server takes of one attribute, with some room. */
const VALUE_BYTES = 2_000;

interface Labels {
  teamId: string;
  createdBy: string;
  harness: string;
  deploymentId: string | null;
  repo: string | null;
  labels: string[];
}

/** What a workflow is told of a stored input: references only, whatever else the row holds. */
export function inputMessage(input: {
  eventId: string;
  kind: InputKind;
  message: Record<string, unknown>;
}): InputMessage {
  const { effectId, approvalId, decision } = input.message as Partial<InputMessage>;
  return {
    eventId: input.eventId,
    kind: input.kind,
    ...(effectId === undefined ? {} : { effectId }),
    ...(approvalId === undefined ? {} : { approvalId }),
    ...(decision === undefined ? {} : { decision }),
  };
}

/** The first labels, as many as can be searched for: too many must not keep a session from its start. */
function fitting(labels: string[]): string[] {
  const encoder = new TextEncoder();
  let bytes = 2;
  return labels.filter((label) => (bytes += encoder.encode(JSON.stringify(label)).length + 1) <= VALUE_BYTES);
}

/**
 * How a session workflow is started, whoever starts it. A second start fails: its caller must know that the inputs it
 * carried did not arrive with it.
 */
export function sessionStart(args: SessionArgs, labels: Labels, taskQueue: string) {
  return {
    workflowId: sessionWorkflowId(args.sessionId),
    taskQueue,
    args: [args] as [SessionArgs],
    workflowIdConflictPolicy: 'FAIL' as const,
    workflowIdReusePolicy: 'REJECT_DUPLICATE' as const,
    staticSummary: `${args.agent.name} v${args.agent.version}: ${args.title}`.slice(0, 200),
    typedSearchAttributes: [
      { key: AGENT_ID, value: args.agent.id },
      { key: AGENT_VERSION, value: args.agent.version },
      { key: TEAM_ID, value: labels.teamId.slice(0, KEYWORD_CHARS) },
      { key: USER_ID, value: labels.createdBy.slice(0, KEYWORD_CHARS) },
      { key: HARNESS, value: labels.harness },
      ...(labels.repo === null ? [] : [{ key: REPO, value: labels.repo.slice(0, KEYWORD_CHARS) }]),
      ...(labels.labels.length === 0 ? [] : [{ key: LABELS, value: fitting(labels.labels) }]),
      ...(labels.deploymentId === null ? [] : [{ key: DEPLOYMENT_ID, value: labels.deploymentId }]),
    ],
  };
}
