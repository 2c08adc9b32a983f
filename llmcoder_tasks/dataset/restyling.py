"""The same words in another dress: Roman numerals for Arabic ones and back, one for many."""

from __future__ import annotations

import re

from llmcoder_tasks.dataset.chance import Chance

_ROMAN = ("I", "II", "III", "IV", "V")
_NUMERAL = re.compile(r"\b(?P<what>type|stage|grade|class|bipolar) (?P<numeral>I{1,3}|IV|V|[1-5])\b(?!,| or| and|/)", re.IGNORECASE)
_SINGULAR = {
    "abnormalities": "abnormality", "abscesses": "abscess", "agents": "agent", "arteries": "artery", "burns": "burn",
    "complications": "complication", "conditions": "condition", "cysts": "cyst", "defects": "defect", "deformities": "deformity",
    "devices": "device", "diseases": "disease", "disorders": "disorder", "drugs": "drug", "effects": "effect",
    "fractures": "fracture", "infections": "infection", "injuries": "injury", "joints": "joint", "lesions": "lesion",
    "ligaments": "ligament", "malformations": "malformation", "muscles": "muscle", "neoplasms": "neoplasm", "nerves": "nerve",
    "polyps": "polyp", "seizures": "seizure", "symptoms": "symptom", "syndromes": "syndrome", "tendons": "tendon",
    "tissues": "tissue", "tumors": "tumor", "ulcers": "ulcer", "veins": "vein", "vessels": "vessel", "wounds": "wound",
}  # fmt: skip
_MADE_MANY = ("complication", "fracture", "lesion", "seizure", "ulcer", "wound")
_PLURAL = {one: many for many, one in _SINGULAR.items() if one in _MADE_MANY}
_COUNTED = re.compile(rf"\b(?:{'|'.join([*_SINGULAR, *_PLURAL])})\b")


def restyle(text: str, chance: Chance) -> str:
    """Turn the numerals, or say one for many or many for one, once; a text without either comes back unchanged."""
    if chance.happens(0.6):
        turned = _NUMERAL.sub(lambda match: f"{match['what']} {_turn_numeral(match['numeral'])}", text)
        if turned != text:
            return turned
    return _COUNTED.sub(lambda match: _SINGULAR.get(match[0]) or _PLURAL[match[0]], text, count=1)


def _turn_numeral(numeral: str) -> str:
    if numeral.isdigit():
        return _ROMAN[int(numeral) - 1]
    return str(_ROMAN.index(numeral.upper()) + 1)
