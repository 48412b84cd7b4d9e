#!/bin/bash
# First process of a user-mode Linux whose root is the host's file system: an NFS server and two clients of it.
# boot.sh PYTHON REPOSITORY FOLDER OPTIONS [ARGUMENT...]
#   PYTHON, REPOSITORY  interpreter and repository, to run tests.cluster.two_mounts with ARGUMENT...
#   FOLDER              on the host, for what is found: result.json
#   OPTIONS             of the NFS mounts, such as noac; - for none
# The export lies on the first block device, an image with an ext4 file system.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
python=$1 repository=$2 folder=$3 options=$4
shift 4
arguments=()
# The kernel adds a word of its own.
for each in "$@"; do [[ $each == console=* ]] || arguments+=("$each"); done
mount -t proc proc /proc
mount -t sysfs sys /sys
for each in /run /var/lib/nfs /mnt; do mount -t tmpfs guest "$each"; done
mkdir -p /dev/shm && mount -t tmpfs guest /dev/shm
ip link set lo up
modules=/usr/lib/uml/modules/$(uname -r)
for wanted in nfsd/nfsd nfs/nfsv4; do
    # Of a module's line the last one is needed first.
    for module in $(grep "^kernel/fs/$wanted.ko" "$modules/modules.dep" | tr -d : | tr ' ' '\n' | tac); do
        insmod "$modules/$module" 2>&1 | grep -v "File exists"
    done
done
mkdir -p /mnt/export /mnt/a /mnt/b /var/lib/nfs/v4recovery
touch /var/lib/nfs/etab /var/lib/nfs/rmtab /var/lib/nfs/state
mount /dev/ubda /mnt/export
mount -t nfsd nfsd /proc/fs/nfsd
# No delegations: the server knows both mounts as one client, and would not call back from one what it gave the other.
echo 0 > /proc/sys/fs/leases-enable
echo 10 > /proc/fs/nfsd/nfsv4gracetime
echo 10 > /proc/fs/nfsd/nfsv4leasetime
exportfs -o rw,no_root_squash,fsid=0,sync,no_subtree_check 127.0.0.1:/mnt/export
rpc.mountd -N 2 -N 3
rpc.nfsd -N 3 4
[ "$options" = - ] && more= || more=,$options
# nosharecache: each mount is a client of its own, with its own memory of attributes, names and data.
for each in a b; do mount -t nfs4 -o "vers=4.2,nosharecache$more" 127.0.0.1:/ /mnt/$each; done
grep nfs4 /proc/mounts
cd "$repository" || exit
PYTHONPATH=$repository timeout 3000 "$python" -m tests.cluster.two_mounts /mnt/a /mnt/b "$folder/result.json" "${arguments[@]}"
sync
poweroff -f
