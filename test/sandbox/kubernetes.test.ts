import { sandboxConformance } from '../conformance/sandbox.suite.ts';
import { makeKubernetesBed } from '../support/kubernetes-bed.ts';

sandboxConformance('kubernetes (API double, not a cluster), the official client', makeKubernetesBed);
