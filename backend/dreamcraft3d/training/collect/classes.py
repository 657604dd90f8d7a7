"""A rough class of an object, from the words of its name and its folders: for balance and for figures per class."""

import re
from pathlib import PurePosixPath

KEYWORDS = {
    "people": r"soldier|infantry|_(b|e|a)$|hero|champion|cavalry|archer|spearman|girl|boy|woman|man_|human|person"
    r"|people|civilian|character|head|male|female|priest|worker|villager|support_|monk|civil|pilot|crew|konqi|tux"
    r"|kart.?driver|sitting|standing|body|scientist",
    "animal": r"fauna|animal|horse|cow|sheep|dog|cat\b|bird|fish|bear|wolf|lion|tiger|elephant|camel|deer|goat|pig"
    r"|chicken|whale|shark|crocod|rabbit|zebra|gazelle|giraffe|pony|spider|dragon|dino|penguin|bull|snake|insect|duck"
    r"|alien",
    "aircraft": r"aircraft|airplane|plane|helicopter|cessna|boeing|airbus|747|737|a320|a330|heli|jet|bomber|fighter"
    r"|glider|f-?1[456]|mig|ufo|saucer|drone|zeppelin|balloon|interceptor|dropship",
    "ship": r"ship|boat|trireme|quinquereme|bireme|vessel|yacht|carrier|tanker|submarine|frigate|raft|canoe|buoy"
    r"|liburne",
    "vehicle": r"vehicle|car\b|cars|truck|bus|van|tank|train|loco|wagon|kart|motor|bike|bicycle|tractor|ambulance"
    r"|chariot|cart|siege|wheel|catapult|ballista|sedan|suv|tricycle|hover|tracks|halftrack|bulldozer|crane",
    "plant": r"flora|tree|plant|bush|flower|cactus|palm|grass|fern|mushroom|fungi|pine|oak|hedge|leaf|lily|shrub"
    r"|bamboo",
    "food": r"food|fruit|apple|banana|bread|cake|pizza|burger|drink|bottle|wine|cheese|meat|cup|coffee|orange|pear"
    r"|tomato|carrot|icecream|ice_cream|candy|donut|sandwich",
    "weapon/armour": r"weapon|sword|shield|helmet|helm|spear|bow|gun|rifle|pistol|missile|rocket|grenade|knife|axe"
    r"|armou?r|ammo|cannon|laser|dagger|mace|turret|quiver|cape|crest",
    "furniture/home": r"chair|table|sofa|couch|bed|lamp|desk|cabinet|shelf|wardrobe|furniture|armchair|stool|drawer"
    r"|kitchen|bath|toilet|sink|oven|fridge|television|tv|computer|monitor|radiator|mirror|door|window|curtain|carpet"
    r"|rug|vase|plate|kettle|toaster|washer|piano|sh3d|bench|fireplace|light|clock|phone|keyboard|book|pot\b|pillow",
    "building": r"building|structur|house|tower|temple|church|barracks|castle|wall|gate|fortress|farm|hangar|terminal"
    r"|skyscraper|apartment|factory|bridge|fort|hut|tent|market|storehouse|mill|hall|stable|office|hotel|stadium"
    r"|industrial|retail|warehouse|highrise|town|pyramid|monument|base|bunker|silo|refinery|column|statue",
    "rock": r"geology|rock|stone|boulder|cliff|mine|metal",
}
"""The first class of which a pattern occurs."""

ACTOR_FOLDERS = {
    "fauna": "animal", "flora": "plant", "fungi": "plant", "geology": "rock", "structures": "building",
    "units": "people", "campaigns": "building", "props/flora": "plant", "props/fauna": "animal",
    "props/units": "weapon/armour", "props/horse": "weapon/armour", "props/camel": "weapon/armour",
}  # fmt: skip
"""Of 0 A.D., whose folders say it better than its names."""

IN_A_HOME = ("people", "animal", "vehicle", "plant", "food")
"""Classes that an object of a furniture library may have instead of furniture."""


def class_of(package: str, source: str, name: str, category: str) -> str:
    """The class of an object of a package (its prefix of ids)."""
    words = f"{name} {category}".lower()
    if package == "sh3d":
        return _first(words, IN_A_HOME) or "furniture/home"
    if package == "warzone2100-data":
        return "building" if re.search("structs|blds|features", f"{source} {words}") else "vehicle"
    if package == "0ad-data":
        return _actor_class(PurePosixPath(source).parts[2:], source.lower())
    return _first(f"{source.lower()} {words}", tuple(KEYWORDS)) or "prop"


def _first(words: str, classes: tuple[str, ...]) -> str:
    return next((name for name in classes if re.search(KEYWORDS[name], words)), "")


def _actor_class(folders: tuple[str, ...], source: str) -> str:
    """The class of an actor in `folders` below art/actors."""
    key = "/".join(folders[:2]) if folders[:1] == ("props",) else "".join(folders[:1])
    found = ACTOR_FOLDERS.get(key, "prop")
    return "people" if found == "weapon/armour" and re.search("head|hair|mane|tail|face", source) else found
