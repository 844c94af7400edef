/* SPDX-License-Identifier: Apache-2.0 */
/* label: the SELinux label of what containers see.
 *
 * A bind mount shows the labels of the files; the option context= belongs to a whole file system,
 * of which the store is a part, so it cannot be given to a volume.  So the folders of content have
 * a label that containers may read; what is made in a folder has the folder's type (selinux(8), and
 * no policy has a transition for these), and links and renamed files keep theirs.  The index and
 * the rest of the store keep what the policy gives them. */
#pragma once

#include "cache/store.h"

/* Does the kernel have SELinux, and was it not turned off?  Told by the file systems it knows:
 * containers do not see selinuxfs itself.  `proc` is "/proc", but in tests. */
bool label_is_needed(const char *proc);

/* Gives ingest/, objects/, partial/ (of whose files objects are made) and trees/ the label; a
 * folder that has another one, all in it as well. Before anything is pulled.  `ret_n`: the files
 * and directories that were changed.  Errors: -ENOTSUP the file system has one label for all, or
 * none; -EINVAL the policy does not know this one; -EACCES, -EPERM it may not be set; -EIO and the
 * like. */
int label_content(Store *s, const char *label, uint64_t *ret_n, Err *err) _must_check_;
