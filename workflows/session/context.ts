import { setCurrentDetails, upsertSearchAttributes } from '@temporalio/workflow';
import { defineSearchAttributeKey, SearchAttributeType } from '@temporalio/common';
import type { SessionArgs } from '../messages.ts';
import type { SessionState } from './state.ts';

const SESSION_STATUS = defineSearchAttributeKey('SessionStatus', SearchAttributeType.KEYWORD);
const NEEDS_APPROVAL = defineSearchAttributeKey('NeedsApproval', SearchAttributeType.BOOL);

/** What the parts of the session workflow share. */
export interface SessionContext {
  args: SessionArgs;
  state: SessionState;
  /** The preparation of the sandbox that runs now. */
  preparing: Promise<unknown> | undefined;
  /** Renders the state for the Temporal UI; `waitingTools` are the tools that wait for a person. */
  show(waitingTools: string[]): void;
}

export function sessionContext(args: SessionArgs, state: SessionState): SessionContext {
  let shown = '';
  return {
    args,
    state,
    preparing: undefined,
    show(waitingTools) {
      setCurrentDetails(details(args, state, waitingTools));
      const status = state.peek().status;
      const needsApproval = waitingTools.length > 0;
      // Search attributes cost a history event each: written only when they change.
      if (shown === `${status}/${needsApproval}`) return;
      shown = `${status}/${needsApproval}`;
      upsertSearchAttributes([
        { key: SESSION_STATUS, value: status },
        { key: NEEDS_APPROVAL, value: needsApproval },
      ]);
    },
  };
}

function details(args: SessionArgs, state: SessionState, waitingTools: string[]): string {
  const peek = state.peek();
  return [
    `**${args.title}** · ${peek.status}`,
    '',
    `- session \`${args.sessionId}\``,
    `- agent ${args.agent.name} v${args.agent.version} (\`${args.agent.id}\`)`,
    `- turn ${peek.turn}, queued messages ${peek.queued}`,
    ...(waitingTools.length === 0 ? [] : [`- **waiting for a person**: ${waitingTools.join(', ')}`]),
    `- events: \`GET /v1/sessions/${args.sessionId}/events\``,
  ].join('\n');
}
