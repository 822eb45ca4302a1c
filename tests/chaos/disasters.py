"""What breaks: kills, copies of the centre set back, images of nodes put back, clones.

Before a copy takes the place of data, everything that survives is read. A value that is neither there nor in the copy
may vanish; every other one must be found at the end.
"""
import json
import os
import shutil
import signal
import time

from bson import json_util

from records import KINDS, names_in


def copy_data(source, target):
    """Copies the data directory of a node, without its socket."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.sock"))


def names_at_node(world, node):
    """Returns every name that a node shows in records and lists. None: it does not answer."""
    paths = ["/sync/conflicts", "/sync/dead", "/trash?limit=1000"]
    for kind in KINDS.values():
        if "{owner}" in kind.listing:
            paths += [kind.listing.format(owner=account) for account in world.accounts]
        else:
            paths.append(kind.listing)
    found = set()
    for path in paths:
        answer = world.guess(lambda: node.call("GET", path))
        if answer is None:
            return None
        if answer.status == 200:
            found |= names_in(json.dumps(answer.body))
            if path.startswith("/trash?"):
                # A list shows no bodies.
                paths += [f"/trash/{row['id']}" for row in answer.body]
    return found


def names_at_centre(world):
    """Returns every name in the records, conflicts and the trash of the centre."""
    found = set()
    for kind in list(KINDS) + ["edge_conflicts", "edge_trash"]:
        for document in world.centre.database[kind].find():
            found |= names_in(json_util.dumps(document))
    return found


class Disasters:
    """Breaks things in one world and notes what that may destroy."""

    def __init__(self, world):
        self.world, self.history = world, world.history
        self.centre_copies, self.images = [], {}

    # --- the centre

    def kill_centre(self, action, down):
        self.history.tell(action, f"the centre is killed, for {down:.1f} s")
        self.world.centre.kill()
        time.sleep(down)
        self.world.centre.start()

    def copy_centre(self, action):
        names = names_at_centre(self.world)
        start = self.history.now()
        target = os.path.join(self.world.directory, f"centre-copy-{len(self.centre_copies)}")
        self.world.centre.copy(target)
        self.centre_copies.append({"path": target, "names": names, "start": start})
        self.history.tell(action, f"copy {len(self.centre_copies) - 1} of the centre's directory is made")

    def set_centre_back(self, action):
        """Puts the newest copy in the place of the centre's data."""
        if not self.centre_copies:
            return
        copy = self.centre_copies[-1]
        self.world.wait_for_busy()
        # While it stands still nothing reaches the nodes: what they show now is what survives.
        os.kill(self.world.centre.process.pid, signal.SIGSTOP)
        time.sleep(0.2)
        kept = set(copy["names"])
        for node in self.world.nodes:
            kept |= names_at_node(self.world, node) or set()
        self.world.centre.kill()
        self.world.centre.set_back(copy["path"])
        self.world.centre.start()
        self.history.tell(action, f"the centre is set back to the copy of {copy['start']:.2f}")
        self.history.centre_set_back.append(self.history.now())
        for event in self.history.events:
            if event.what == "delete" and event.place == "the centre" and event.end > copy["start"]:
                event.destroyed = True
            elif event.value is not None and event.value not in kept:
                event.destroyed = True
            elif event.what == "write" and event.value is None and event.place == "the centre" \
                    and event.end > copy["start"]:
                event.destroyed = True

    # --- nodes

    def kill_node(self, action, node):
        self.history.tell(action, f"{node.name} is killed")
        node.end()
        node.start()

    def take_image(self, action, node):
        """Copies a node's data directory while the node is stopped for a moment."""
        self.world.wait_for_busy()
        names = names_at_node(self.world, node)
        if names is None:
            return
        node.end(signal.SIGKILL)
        start = self.history.now()
        target = os.path.join(self.world.directory, f"image-{node.name}-{len(self.images)}")
        copy_data(node.data, target)
        node.start()
        self.images[node.name] = {"path": target, "names": names, "start": start}
        self.history.tell(action, f"an image of the data of {node.name} is made")

    def put_image_back(self, action, node):
        """Puts an image in the place of a node's data."""
        image = self.images.get(node.name)
        if image is None:
            return
        self.world.wait_for_busy()
        node.end(signal.SIGKILL)
        # What the node had on its way has arrived or not by now.
        time.sleep(0.2)
        kept = set(image["names"]) | names_at_centre(self.world)
        for other in self.world.nodes:
            if other is not node:
                kept |= names_at_node(self.world, other) or set()
        shutil.rmtree(node.data)
        shutil.copytree(image["path"], node.data)
        node.start()
        self.history.tell(action, f"the image of {image['start']:.2f} is put back at {node.name}")
        for event in self.history.events:
            if event.value is not None and event.value not in kept:
                event.destroyed = True
            elif event.what in ("delete", "write") and event.value is None and event.place == node.name \
                    and event.end > image["start"]:
                event.destroyed = True

    def clone(self, action, node):
        """Copies a node's data directory, and the copy runs as another process beside it."""
        node.end(signal.SIGKILL)
        twin = self.world.new_node(f"twin{len(self.world.nodes)}", continuous=False)
        copy_data(node.data, twin.data)
        node.start()
        twin.start()
        self.history.tell(action, f"{node.name} is copied, and {twin.name} runs with the copy")
