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
const DEPLOYMENT_ID = defineSearchAttributeKey('DeploymentId', SEARCH_ATTRIBUTES.DeploymentId);

/** A keyword may be longer on the server; a label need not. */
const KEYWORD_CHARS = 255;

interface Labels {
  teamId: string;
  createdBy: string;
  harness: string;
  deploymentId: string | null;
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
      ...(labels.deploymentId === null ? [] : [{ key: DEPLOYMENT_ID, value: labels.deploymentId }]),
    ],
  };
}
